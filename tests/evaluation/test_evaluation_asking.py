"""The model's answers: which mask is the answer, where the clicks go, and what goes back as the mask prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluation_data import random_ids, random_image, rectangle, truth_of
from numpy.typing import NDArray

from samrt.evaluation.asking import Answer, ask_boxes, ask_points, choose_answer, instances_at_once
from samrt.evaluation.metrics import iou
from samrt.evaluation.protocol import first_point, next_point, prompt_box
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)

SIZE = 64, 64
Mask = NDArray[np.bool_]


class Scripted:
    """A model that answers with given masks, at the size of the image, and keeps what it was asked."""

    def __init__(self, answers: list[list[list[Mask]]], predicted: list[float]) -> None:
        self.decoder = self
        self.embedding: Any = SimpleNamespace(original_size=SIZE)
        self.scripted = answers
        self.predicted = predicted
        self.asked: list[dict[str, Any]] = []

    def prompts_for(self, _: Any, **prompts: Any) -> dict[str, Any]:
        return prompts

    def full_size(self, _: Any, low_res: NDArray[np.float32]) -> NDArray[np.bool_]:
        return low_res > 0

    def answers(self, _: Any, prompts: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        masks = np.array(self.scripted[len(self.asked)])
        self.asked.append(prompts)
        logits = np.where(masks, 3 + len(self.asked), -3).astype(np.float32)
        return logits, np.tile(np.array(self.predicted, np.float32), (len(masks), 1))


def square(x: int, side: int = 20) -> Mask:
    return rectangle(x, 10, x + side, 10 + side, SIZE)


def ask(model: Scripted, truths: list[Mask], count: int) -> list[list[Answer]]:
    given: Any = model
    return list(ask_points(given, model.embedding, [truth_of(truth) for truth in truths], count))


def test_one_point_takes_the_most_confident_of_three_and_others_the_single_mask() -> None:
    predicted = np.array([0.9, 0.2, 0.8, 0.3], np.float32)

    assert choose_answer(predicted, points=1) == 2
    assert choose_answer(predicted, points=2) == choose_answer(predicted, points=0) == 0


def test_the_dialogue_follows_the_errors_and_feeds_the_logits_back() -> None:
    truth = square(20)
    first = [square(0), square(4), square(24), square(40)]  # the most confident is number 2
    second = [square(18), truth, truth, truth]
    model = Scripted([[first], [second], [[truth] * 4]], predicted=[0.95, 0.1, 0.9, 0.4])
    one, two, three = (answers[0] for answers in ask(model, [truth], 3))

    np.testing.assert_array_equal(one.mask, first[2])
    np.testing.assert_array_equal(two.mask, second[0])
    assert (one.chosen, two.chosen, three.chosen) == (2, 0, 0)
    start = first_point(truth_of(truth))
    click = next_point(truth, first[2])
    correction = next_point(truth, second[0])
    assert one.points == (start,)
    assert two.points == (start, click)
    assert three.points == (start, click, correction)
    np.testing.assert_array_equal(model.asked[0]["point_coords"], [[start[:2]]])
    assert "mask_input" not in model.asked[0]
    for asked, answer, points in ((model.asked[1], one, two.points), (model.asked[2], two, three.points)):
        np.testing.assert_array_equal(asked["point_coords"], [[point[:2] for point in points]])
        np.testing.assert_array_equal(asked["point_labels"], [[point[2] for point in points]])
        np.testing.assert_array_equal(asked["mask_input"][0], answer.low_res)
    assert one.low_res.max() == 4  # of the first call, and of the second:
    assert two.low_res.max() == 5
    np.testing.assert_allclose(one.ious, [iou(mask, truth_of(truth)) for mask in first])
    np.testing.assert_allclose(two.ious, [iou(mask, truth_of(truth)) for mask in second])


def test_a_perfect_answer_stays_while_others_go_on() -> None:
    done, other = square(5), square(30)
    poor = square(34)
    model = Scripted(
        [[[done] * 4, [poor] * 4], [[poor] * 4], [[other] * 4]],
        predicted=[0.5, 0.6, 0.5, 0.5],
    )
    one, two, three = ask(model, [done, other], 3)

    assert [len(asked["point_coords"]) for asked in model.asked] == [2, 1, 1]
    assert one[0] is two[0] is three[0]
    assert one[0].ious[one[0].chosen] == 1
    np.testing.assert_array_equal(three[1].mask, other)
    assert len(three[1].points) == 3


def test_nothing_is_asked_when_all_answers_are_perfect() -> None:
    truth = square(5)
    model = Scripted([[[truth] * 4]], predicted=[0.5, 0.6, 0.5, 0.5])

    assert len(ask(model, [truth], 5)) == 5
    assert len(model.asked) == 1


def test_answers_are_those_of_predict(toy_model: Model) -> None:
    """Several instances at once, in an image that is resized, against one `Model.predict` after the other."""
    image, ids = random_image(3), random_ids(3)
    truths = [truth_of(ids == i) for i in np.unique(ids) if i]
    embedding = toy_model.encode(image)
    boxes = ask_boxes(toy_model, embedding, truths)
    steps = list(ask_points(toy_model, embedding, truths, 3))

    for index, truth in enumerate(truths):
        expected = toy_model.predict(embedding, box=prompt_box(truth), multimask_output=False)
        np.testing.assert_array_equal(boxes[index].mask, expected.masks[0])
        three = toy_model.predict(embedding, box=prompt_box(truth), multimask_output=True)
        np.testing.assert_allclose(boxes[index].ious[1:], [iou(mask, truth) for mask in three.masks])
        points, mask_input, answer = [first_point(truth)], None, None
        for count, step in enumerate(steps, start=1):
            if answer is not None:
                found = next_point(truth.mask(), answer)
                assert found is not None
                points.append(found)
            expected = toy_model.predict(
                embedding,
                point_coords=[point[:2] for point in points],
                point_labels=[point[2] for point in points],
                mask_input=mask_input,
                multimask_output=count == 1,
            )
            best = int(np.argmax(expected.iou_predictions))
            answer, mask_input = expected.masks[best], expected.low_res_masks[best : best + 1]
            np.testing.assert_array_equal(step[index].mask, answer)
            assert step[index].predicted[step[index].chosen] == pytest.approx(expected.iou_predictions[best], abs=1e-6)


def test_fewer_instances_are_asked_at_once_in_large_images() -> None:
    assert instances_at_once((480, 640)) == 32
    assert instances_at_once((4000, 6000)) == 2
    assert instances_at_once((30_000, 30_000)) == 1
