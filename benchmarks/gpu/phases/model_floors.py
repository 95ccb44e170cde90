"""Operations and bytes of the models, from which and from the phase `floors` the least times follow."""

from __future__ import annotations

import floors
import models
from work import Work


def run(work: Work) -> None:
    counted = floors.of_models({name: models.configs()[name] for name in models.chosen(work.smoke)})
    work.record("models", value=counted)
