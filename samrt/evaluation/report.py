"""The tables of an evaluation in Markdown, padded so that a terminal shows them as tables too."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from samrt.evaluation.difference import LEAST_IMAGES
from samrt.evaluation.results import DataSetSummary, Evaluation, ModelDescription
from samrt.evaluation.summary import Row, Score
from samrt.visible import CELL, visible

_HEADINGS = ("data set", "prompt", "instances", "mIoU", "boundary", "confident", "oracle", "r", "baselines")
_COMPARED = ("data set", "prompt", "mIoU", "other", "difference", "95 % interval", "boundary difference", "interval")
_LEGEND = """\
mIoU and boundary (IoU) are of the model's answer, confident of the most confident of its masks for an ambiguous prompt
(three for SAM), oracle of the best of those; r is the correlation of predicted with true IoU. Baselines use no image;
theirs are mIoU/boundary. All are means over instances."""


def scores_table(rows: Sequence[Row]) -> str:
    """One line for each data set and prompt."""
    return _table(
        _HEADINGS,
        [
            (
                row.data_set,
                _prompt(row.prompt),
                str(row.instances),
                _score(row.answer.miou),
                _score(row.answer.boundary_miou),
                _score(row.confident_miou),
                _score(row.oracle_miou),
                "-" if row.correlation is None else f"{row.correlation:.2f}",
                ", ".join(f"{name} {_both(score)}" for name, score in row.baselines.items()),
            )
            for row in rows
        ],
    )


def differences_table(evaluation: Evaluation) -> str:
    """One line for each data set and prompt of a comparison."""
    return _table(
        _COMPARED,
        [
            (
                each.data_set,
                _prompt(each.prompt),
                _score(each.miou),
                _score(each.other_miou),
                _signed(each.difference),
                _interval(each.interval),
                _signed(each.boundary_difference),
                _interval(each.boundary_interval),
            )
            for each in evaluation.differences
        ],
    )


# By which a page is known again; not shown.
REPORT_MARK = b"<!-- samrt-evaluation -->"


def terminal_report(evaluation: Evaluation) -> str:
    """The tables alone."""
    parts = [scores_table(evaluation.rows)]
    if evaluation.other is not None:
        parts.append(f"other: {_model(evaluation.other)}\n\n{differences_table(evaluation)}")
    return "\n\n".join(parts)


def markdown_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> str:
    """The text of results.md; `pictures` are file names beside it."""
    parts = [
        REPORT_MARK.decode(),
        visible(f"# Evaluation of {evaluation.model.family} {evaluation.model.variant}"),
        _model(evaluation.model),
        "\n".join(f"- {_data_set(each)}" for each in evaluation.data_sets),
        scores_table(evaluation.rows),
        _LEGEND,
    ]
    if evaluation.other is not None:
        parts += [
            "## Compared",
            f"Other: {_model(evaluation.other)}",
            differences_table(evaluation),
            "Differences are the other's less the first's; intervals are paired bootstraps over images, "
            f"and left out with fewer than {LEAST_IMAGES} images, where they would be too narrow.",
        ]
    if pictures:
        parts += [
            "## Best, median and worst masks",
            "\n\n".join(f"![{visible(name)}]({quote(name, errors='surrogateescape')})" for name in pictures),
        ]
    return "\n\n".join(parts) + "\n"


def describe_left_out(data_set: DataSetSummary) -> str:
    """What of a data set was not evaluated; empty if all was."""
    reasons = [
        f"{count} {reason}" + (f" ({_first(names)})" if (names := data_set.left_out_named.get(reason)) else "")
        for reason, count in data_set.left_out.items()
    ]
    if data_set.images < data_set.available:
        reasons.append(f"{data_set.available - data_set.images} of {data_set.available} images (limit)")
    return ", ".join(reasons)


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"the first: {names[0]}"


def _model(model: ModelDescription) -> str:
    return visible(f"{model.bundle}: {model.family} {model.variant} at {model.image_size}, {model.backend}")


def _data_set(each: DataSetSummary) -> str:
    left_out = describe_left_out(each)
    return visible(
        f"{each.name}: {each.images} images, {each.instances} instances of {each.median_area:g} pixels (median); "
        f"the disc has a radius of {each.disc_radius:.1f} pixels" + (f"; left out: {left_out}" if left_out else "")
    )


def _prompt(name: str) -> str:
    kind, _, count = name.partition(":")
    return kind if not count else f"{count} point" + ("s" if count != "1" else "")


def _score(value: float) -> str:
    return f"{value:.3f}"


def _both(score: Score) -> str:
    return f"{_score(score.miou)}/{_score(score.boundary_miou)}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _signed(value: float) -> str:
    # Adding zero takes the sign from a negative zero.
    return f"{round(value, 4) + 0.0:+.4f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # A bar in a name would begin a cell of its own.
    lines = [list(headings), *([visible(cell, CELL).replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
