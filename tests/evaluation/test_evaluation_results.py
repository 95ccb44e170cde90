"""What results.json says of the model, and what tells one model's scores from another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from samrt.bundle.folder import open_bundle
from samrt.engines.selection import choose
from samrt.evaluation.results import ModelDescription

pytest_plugins = ("toy_fixtures",)


def test_the_identity_is_of_what_runs_not_of_advice_about_it(toy_bundle: Path) -> None:
    def engines(version: str, verification: object) -> Any:
        return SimpleNamespace(manifest=SimpleNamespace(version=version, verification=verification))

    bundle = open_bundle(toy_bundle)
    choice = replace(choose(bundle), backend="tensorrt", engines=engines("10.3", None))
    before = ModelDescription.of(bundle, choice)
    compared = ModelDescription.of(bundle, replace(choice, engines=engines("10.3", {"worst": 0.1})))
    newer = ModelDescription.of(bundle, replace(choice, engines=engines("10.4", None)))

    assert "not compared" in str(choice)
    assert before.backend == "tensorrt 10.3, fp32-dense"
    assert before.identity == compared.identity
    assert before.identity != newer.identity
