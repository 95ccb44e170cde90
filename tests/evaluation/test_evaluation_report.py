"""The tables' numbers and words."""

from __future__ import annotations

from dataclasses import replace

from samrt.evaluation.difference import Difference
from samrt.evaluation.report import describe_left_out, differences_table, markdown_report, terminal_report
from samrt.evaluation.results import DataSetSummary, Evaluation, ModelDescription
from samrt.evaluation.summary import Row, Score

MODEL = ModelDescription("b.samrt", "toy", "tiny", 64, "onnxruntime, fp32-dense", "ab@64", {})
SUMMARY = DataSetSummary("shapes", 3, 10, 20, 150.0, 6.91, {"crowd regions": 2})
ROW = Row("shapes", "points:2", 20, Score(0.5, 0.25), 0.4, 0.75, 0.6, None, {"disc": Score(0.3, 0.125)})
DIFFERENCE = Difference("shapes", "points:2", 0.5, 0.4875, -0.0125, (-0.02, -0.00001), 0.0, None)
EVALUATION = Evaluation(MODEL, ("points:2",), (SUMMARY,), (ROW,), MODEL, (ROW,), (DIFFERENCE,))


def test_the_signs_of_differences_are_shown_and_zero_has_none_of_its_own() -> None:
    line = differences_table(EVALUATION).splitlines()[2]

    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "shapes", "2 points", "0.500", "0.487", "-0.0125", "-0.0200 to +0.0000", "+0.0000", "-",
    ]  # fmt: skip


def test_the_page_says_what_was_left_out_and_shows_the_pictures() -> None:
    page = markdown_report(EVALUATION, ["shapes_points_2.png"])

    assert "left out: 2 crowd regions, 7 of 10 images (limit)" in page
    assert "3 images, 20 instances of 150 pixels (median); the disc has a radius of 6.9 pixels" in page
    assert "![shapes_points_2.png](shapes_points_2.png)" in page
    assert "| -" in page
    assert describe_left_out(replace(SUMMARY, images=10, left_out={})) == ""


def test_the_terminal_has_the_tables_alone() -> None:
    alone = terminal_report(replace(EVALUATION, other=None, other_rows=(), differences=()))

    assert len(alone.splitlines()) == 3
    assert terminal_report(EVALUATION).startswith(alone)
    assert "other: b.samrt: toy tiny at 64" in terminal_report(EVALUATION)


def test_links_to_pictures_are_quoted() -> None:
    page = markdown_report(EVALUATION, ["my set (2) #50%_box.png"])

    assert "![my set (2) #50%_box.png](my%20set%20%282%29%20%2350%25_box.png)" in page


def test_the_page_says_where_there_is_no_interval() -> None:
    assert "left out with fewer than 10 images" in markdown_report(EVALUATION)
