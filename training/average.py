"""An average of the weights over the steps, which scores better than the last step's (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.model import PromptableModel


class Average:
    """An exponential average of a model's weights; with a `decay` of 0, the weights themselves."""

    def __init__(self, model: PromptableModel, start: Mapping[str, Tensor], decay: float, steps: int) -> None:
        """`start` is the average of the `steps` so far, of any image side."""
        self._decay, self._steps = decay, steps
        self._model = PromptableModel(start, model.side).to(model.pixel_mean.device).requires_grad_(False)

    @torch.no_grad()
    def add(self, model: PromptableModel) -> None:
        """Take in a step's weights. Early averages are over the last tenth of the steps, to forget where they began."""
        self._steps += 1
        decay = min(self._decay, (self._steps + 1) / (self._steps + 10))
        ours, theirs = ([*each.sam.state_dict().values()] for each in (self._model, model))
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The average's state dict, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self._model.sam.state_dict().items()}
