"""How well a model's masks fit: the SAM paper's zero-shot protocol on data sets of your own.

from samrt.evaluation import Contender, Options, evaluate

found = evaluate("data/fruit", Contender("vit_b"), "eval_vit_b", Options(prompts="box"))
print(found.rows[0].answer.miou)
"""

from __future__ import annotations

from samrt.evaluation.difference import Difference
from samrt.evaluation.evaluate import evaluate
from samrt.evaluation.options import Contender, Options
from samrt.evaluation.results import DataSetSummary, Evaluation, ModelDescription
from samrt.evaluation.summary import Row, Score

__all__ = [
    "Contender",
    "DataSetSummary",
    "Difference",
    "Evaluation",
    "ModelDescription",
    "Options",
    "Row",
    "Score",
    "evaluate",
]
