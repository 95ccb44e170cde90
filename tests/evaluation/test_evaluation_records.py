"""The record of an image: its instances in pieces, and what is kept of each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_data import random_ids, random_image, truth_of

from samrt.evaluation import records
from samrt.evaluation.protocol import first_point, parse_prompts
from samrt.evaluation.records import evaluate_instances
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)


def test_the_pieces_do_not_matter(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_ids(3, count=6)
    truths = [truth_of(ids == i, name=str(i)) for i in np.unique(ids) if i]
    arguments = toy_model, toy_model.encode(random_image(3)), truths, parse_prompts("box,points:5"), 5.0
    whole = evaluate_instances(*arguments)
    monkeypatch.setattr(records, "instances_at_once", lambda _: 2)

    assert [record["name"] for record in whole] == [truth.name for truth in truths]
    assert evaluate_instances(*arguments) == whole
    assert len(truths) > 4
    json.dumps(whole, allow_nan=False)  # what a journal can hold


def test_what_a_record_says(toy_model: Model) -> None:
    truth = truth_of(random_ids(3) == 1)
    (record,) = evaluate_instances(toy_model, toy_model.encode(random_image(3)), [truth], parse_prompts("points:3"), 5)

    assert record["area"] == truth.area
    assert record["box"] == list(truth.box)
    assert list(record["baselines"]) == ["disc"]
    assert list(record["prompts"]) == ["points:1", "points:2", "points:3"]
    assert record["prompts"]["points:1"]["points"] == [list(first_point(truth))]
    assert [len(score["points"]) for score in record["prompts"].values()] == [1, 2, 3]
    assert [("mask" in score) for score in record["prompts"].values()] == [True, False, True]
