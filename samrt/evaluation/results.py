"""What an evaluation found, as dataclasses and as results.json."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from samrt.bundle.folder import Bundle
from samrt.engines.selection import Choice, source_hashes
from samrt.errors import InputError, OutputError
from samrt.evaluation.difference import CONFIDENCE, RESAMPLES, Difference
from samrt.evaluation.journal import OVERWRITE, RESTART
from samrt.evaluation.summary import Row
from samrt.files import read_regular, replacing_file

FORMAT, FORMAT_VERSION = "samrt-evaluation", 1
RESULTS_MARK = f'"format": "{FORMAT}"'.encode()
# A data set takes some kilobytes.
_LARGEST = 2**26


@dataclass(frozen=True)
class ModelDescription:
    """Which model was evaluated, and what ran it."""

    bundle: str
    family: str
    variant: str
    image_size: int
    backend: str
    model_id: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, bundle: Bundle, choice: Choice) -> ModelDescription:
        """`backend` is what runs it and the form; `files` are the SHA-256 of that form, whatever runs it."""
        manifest = bundle.manifest
        return cls(
            bundle=str(bundle.path),
            family=manifest.family,
            variant=manifest.variant,
            image_size=manifest.geometry.encoder_side,
            backend=_backend(choice),
            model_id=manifest.model_id,
            files=source_hashes(manifest, choice.form),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What its scores depend on: all but the place of the bundle."""
        return {key: value for key, value in asdict(self).items() if key != "bundle"}


@dataclass(frozen=True)
class DataSetSummary:
    """What was evaluated of a data set.

    Attributes:
        name: of its folder or JSON file.
        images: how many were evaluated.
        available: how many it has.
        instances: in those images.
        median_area: of the instances, in pixels.
        disc_radius: of the baseline beside points, in pixels.
        left_out: annotations that were not evaluated, by reason.
        left_out_named: the first of those, by reason.
        notes: lines about what was not taken as the data set's list says.
    """

    name: str
    images: int
    available: int
    instances: int
    median_area: float
    disc_radius: float
    left_out: dict[str, int]
    left_out_named: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """All that `evaluate` found; `rows` and `differences` are ordered by data set, then by prompt."""

    model: ModelDescription
    prompts: tuple[str, ...]
    data_sets: tuple[DataSetSummary, ...]
    rows: tuple[Row, ...]
    other: ModelDescription | None = None
    other_rows: tuple[Row, ...] = ()
    differences: tuple[Difference, ...] = ()

    def to_json(self) -> str:
        """The text of results.json; scores are rounded to six digits, as those of single instances are."""
        content = asdict(self)
        if self.differences:
            content["bootstrap"] = {"resamples": RESAMPLES, "confidence": CONFIDENCE, "unit": "image"}
        return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **_rounded(content)}, indent=1) + "\n"


def check_results(path: Path, data_sets: Collection[str], *, restart: bool, overwrite: bool = False) -> None:
    """Find out before long work whether `path` may be replaced by the results of `data_sets`.

    Raises:
        InputError: there are results of a data set that is not among them, and they are not to begin anew.
        OutputError: what is there was not written by an evaluation, or cannot be read.
    """
    try:
        found = json.loads(read_regular(path, _LARGEST))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; move it away, or check its permissions") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        if overwrite:
            return
        raise OutputError(f"{path} was not written by an evaluation, and would be lost", OVERWRITE)
    others = [name for name in _names(found) if name not in data_sets]
    if others and not restart:
        raise InputError(f"{path} holds results of {', '.join(others)}, which would be lost", RESTART)


def write_text(path: Path, text: str, mark: bytes | None) -> None:
    """Write a text file beside its target, then rename it; `mark` as for `replacing_file`.

    Raises:
        OutputError: it could not be written; what was there before is untouched.
    """
    with replacing_file(path, mark) as temporary:
        # Names of files need not be valid text.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _backend(choice: Choice) -> str:
    """As `str(choice)`, without its advice: scores do not depend on that."""
    version = f" {choice.engines.manifest.version}" if choice.engines else ""
    return f"{choice.backend}{version}, {choice.form.name}"


def _names(results: Mapping[str, Any]) -> list[str]:
    """The data sets in the content of a results.json."""
    data_sets = results.get("data_sets")
    entries = data_sets if isinstance(data_sets, list) else []
    names = [each.get("name") for each in entries if isinstance(each, dict)]
    return [name if isinstance(name, str) else "a data set without a name" for name in names]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
