"""`samrt info`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from samrt.bundle.default import default_bundle
from samrt.cli.remedies import in_flags
from samrt.cli.streams import show
from samrt.visible import CELL, visible

if TYPE_CHECKING:
    from samrt.bundle.contract import Tensor
    from samrt.bundle.folder import Bundle
    from samrt.bundle.manifest import Base, Manifest
    from samrt.engines.manifest import EngineManifest
    from samrt.engines.selection import Machine
    from samrt.engines.sets import BrokenEngineSet, EngineSet
    from samrt.errors import Reason

DESCRIPTION = """\
Show the content of a bundle: the model, its sizes and its checkpoint, the inputs and outputs of its graphs, its
differences from the torch model, and its engines with whether they can run on this machine.

Every file is checked against its SHA-256. A damaged bundle is an error; damaged engines are listed as such."""

EPILOG = """\
examples:
  samrt info             the model that comes with samrt
  samrt info vit_b
  samrt info vit_b --json
"""

Row = tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "bundle", metavar="BUNDLE", type=Path, nargs="?", help="the folder of a bundle (default: the model in samrt)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the manifest, the result of the check and the engines as JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the bundle and print what it is."""
    from samrt.bundle.folder import open_bundle

    bundle = open_bundle(arguments.bundle or default_bundle())
    if arguments.json:
        # open_bundle raises unless every file has the hash that the manifest says.
        found = {"path": str(bundle.path), "verified": True, **json.loads(bundle.manifest.to_json())}
        found["engines"] = [
            {"name": engines.folder.name, "misfit": _said(reason), **_as_json(engines)}
            for engines, reason in _engines(bundle)
        ]
        print(json.dumps(found, indent=2))
        return 0
    for block in _blocks(bundle):
        for line in block:
            show(line)
    return 0


def _blocks(bundle: Bundle) -> Iterator[list[str]]:
    manifest = bundle.manifest
    yield _table(_model_rows(bundle))
    # The inputs and outputs are the same in every form.
    for name, graph in manifest.forms[0].graphs.items():
        yield ["", name]
        yield _table(
            [*(_tensor_row("in", each) for each in graph.inputs), *(_tensor_row("out", each) for each in graph.outputs)]
        )
    yield ["", "files (size and SHA-256 as the manifest says)"]
    yield _table([(name, _size(entry.bytes), entry.sha256) for name, entry in manifest.files.items()])
    for form in manifest.forms:
        yield ["", f"{form.name}: compared with torch at export"]
        yield _table(_verification_rows(form.verification)) or ["  nothing recorded"]
    yield from _engine_blocks(bundle)


def _engine_blocks(bundle: Bundle) -> Iterator[list[str]]:
    from samrt.engines.sets import EngineSet

    for engines, reason in _engines(bundle):
        # No cell of the table, as those are shortened.
        yield ["", f"engines {engines.folder.name}", *([f"  cannot run here: {_said(reason)}"] if reason else [])]
        rows: list[Row] = [] if reason else [("here", "can run")]
        if isinstance(engines, EngineSet):
            rows += _engine_rows(engines.manifest)
        yield _table(rows)


def _engines(bundle: Bundle) -> Iterator[tuple[EngineSet | BrokenEngineSet, Reason | None]]:
    """The engines in the bundle, each with the reason why it cannot run here, or None."""
    from samrt.engines.selection import fit, this_machine
    from samrt.engines.sets import BrokenEngineSet, find_engine_sets
    from samrt.errors import BundleError, Reason

    machine: Machine | None = None
    for engines in find_engine_sets(bundle.path):
        if isinstance(engines, BrokenEngineSet):
            yield engines, engines.problem
            continue
        machine = machine or this_machine(run_named=False)
        try:
            for name in engines.manifest.engines:
                engines.verified(name)
        except BundleError as error:
            yield engines, error.reason
        else:
            fitting = fit(engines, bundle.manifest, machine)
            yield engines, fitting if isinstance(fitting, Reason) else None


def _said(reason: Reason | None) -> str:
    return in_flags(reason) if reason else ""


def _as_json(engines: EngineSet | BrokenEngineSet) -> dict[str, object]:
    from samrt.engines.sets import EngineSet

    return json.loads(engines.manifest.to_json()) if isinstance(engines, EngineSet) else {}


def _engine_rows(built: EngineManifest) -> Iterator[Row]:
    limits = built.limits
    yield "takes", f"{limits.max_batch} images, {limits.max_prompts} prompts of {limits.max_points} points at once"
    for name, engine in built.engines.items():
        memory = ", ".join(f"{what.removesuffix('_bytes')} {_size(size)}" for what, size in engine.memory.items())
        yield name, f"{_size(engine.content.bytes)}, built in {engine.build_seconds:.0f} s; {memory}"
    if built.plugin is not None:
        yield "needs", str(built.plugin)
    if built.verification is None:
        yield "compared", "not with the bundle yet: it was built where no GPU could run it"
    else:
        yield "compared", f"with the bundle in {built.verification.get('runtime', 'ONNX Runtime')}, on {built.device}"


def _model_rows(bundle: Bundle) -> list[Row]:
    manifest = bundle.manifest
    geometry, masks, source = manifest.geometry, manifest.masks, manifest.source
    side, frame, low = geometry.encoder_side, geometry.prompt_side, geometry.low_res_side
    fitted = "longest side, padded" if geometry.resize == "longest_side" else "stretched to the square"
    return [
        ("bundle", str(bundle.path)),
        ("model", f"{manifest.family} {manifest.variant}, {_count(source.parameters)} parameters"),
        ("image", f"{side} x {side}, {fitted}; {_normalization(manifest)}"),
        *([("prompts", f"in a frame of {frame} x {frame}")] if frame != side else []),
        *(("feature", f"{feature.name}, {' x '.join(map(str, feature.shape))}") for feature in manifest.features),
        ("masks", f"{masks.count} of {low} x {low} logits, mask above {masks.threshold:g}; one by {masks.choice}"),
        ("forms", ", ".join(form.name for form in manifest.forms)),
        ("checkpoint", f"{source.name}, {_size(source.bytes)}"),
        ("", f"SHA-256 {source.sha256}"),
        *_base_rows(source.base),
        ("exported by", ", ".join(f"{name} {version}" for name, version in manifest.exporter.items())),
    ]


def _base_rows(base: Base | None) -> list[Row]:
    if base is None:
        return []
    return [
        ("base", f"{base.name}, {_size(base.bytes)}; {base.tensors} tensors are its own"),
        ("", f"SHA-256 {base.sha256}"),
    ]


def _normalization(manifest: Manifest) -> str:
    how = manifest.geometry.normalization
    if how.mean is None or how.std is None:
        return "each image stretched to 0..1"
    return f"RGB mean {_numbers(how.mean)}, deviation {_numbers(how.std)}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _tensor_row(direction: str, tensor: Tensor) -> Row:
    return direction, tensor.name, tensor.dtype, f"[{', '.join(map(str, tensor.shape))}]"


def _verification_rows(verification: Mapping[str, object]) -> list[Row]:
    """One row per figure: its name, what was measured, and the tolerance that it was held to."""
    bounds, figures = (
        part if isinstance(part := verification.get(key), Mapping) else {} for key in ("tolerance", "figures")
    )
    rest = {key: value for key, value in verification.items() if key not in ("tolerance", "figures")}
    return [*_figure_rows(rest, {}), *_figure_rows(figures, bounds)]


def _figure_rows(figures: Mapping[str, object], bounds: Mapping[str, object], prefix: str = "") -> Iterator[Row]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _figure_rows(value, bounds, f"{prefix}{key}: ")
        else:
            tolerance = f"tolerance {_figure(bounds[key])}" if key in bounds else ""
            yield f"{prefix}{key}".replace("_", " "), _figure(value), tolerance


def _figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else str(number)


def _size(number: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


def _table(rows: list[Row]) -> list[str]:
    # Here for the columns' widths.
    rows = [tuple(visible(cell, CELL) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
