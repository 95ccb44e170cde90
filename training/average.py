"""An average of the weights over the steps, in place of the last step's (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from training.model import PromptableModel


class Average:
    """An exponential average of a model's weights."""

    def __init__(self, model: PromptableModel, kept: Mapping[str, Any], decay: float) -> None:
        """Continue from a run's checkpoint, of any image side. Without an average there, start from its weights."""
        self._decay, self._steps = decay, int(kept.get("averaged_steps", 0))
        start = kept.get("average", kept["state"])
        self._model = PromptableModel(start, model.side).to(model.pixel_mean.device).requires_grad_(False)

    @torch.no_grad()
    def add(self, model: PromptableModel) -> None:
        """Add a step's weights. Early averages are over the last tenth of the steps, so that the start is forgotten."""
        self._steps += 1
        decay = min(self._decay, (self._steps + 1) / (self._steps + 10))
        ours, theirs = ([*each.sam.state_dict().values()] for each in (self._model, model))
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def kept(self) -> dict[str, Any]:
        """Its part of a checkpoint; "average" is a state dict."""
        average = {name: tensor.detach().cpu() for name, tensor in self._model.sam.state_dict().items()}
        return {"average": average, "averaged_steps": self._steps}
