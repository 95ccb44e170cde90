"""engine.json of a set of engines: `EngineManifest.from_json`, and the sets that are found in a bundle's folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.mutations import mutate_json
from toy_bundle import write_toy_bundle
from toy_engines import MACHINE, write_engines

from samrt import SamrtError
from samrt.bundle.folder import Bundle, open_bundle
from samrt.bundle.manifest import Form
from samrt.engines.manifest import EngineManifest
from samrt.engines.plugin import PLUGIN
from samrt.engines.selection import Choice, fit
from samrt.engines.sets import BrokenEngineSet, EngineSet, find_engine_sets

_HOSTILE: tuple[dict[str, Any], ...] = (
    {"backend": "\x1b[2J"},
    {"version": "../../x"},
    {"compute_capabilities": ["8.\u00b2"]},
    {"compute_capabilities": []},
    {"limits": {"max_batch": 2**63, "max_prompts": 1, "max_points": 1}},
    {"verification": [[]]},
    {"engines": {}},
    {"sources": {"encoder.onnx": "0" * 64}},
    {"device": "\ud800"},
)


class _State(NamedTuple):
    bundle: Bundle
    built: EngineManifest
    path: Path


def corpus(folder: Path) -> list[bytes]:
    state = setup(folder)
    whole = json.loads(state.path.read_bytes())
    changed = [{**whole, "plugin": vars(PLUGIN), "verification": None, "device": "Orin"}]
    changed += [{**whole, **changes} for changes in _HOSTILE]
    # Most changes of any are refused.
    return [*[state.path.read_bytes()] * 12, b"", b"[" * 500, *(json.dumps(each).encode() for each in changed)]


def setup(folder: Path) -> _State:
    bundle = write_toy_bundle(folder / "toy")
    built = write_engines(bundle)
    return _State(open_bundle(bundle), built, bundle / "engines" / built.name / "engine.json")


def run(data: bytes, state: _State) -> str:
    state.path.write_bytes(data)
    (found,) = find_engine_sets(state.bundle.folder)
    refused = None
    try:
        manifest = EngineManifest.from_json(data)
    except SamrtError as error:
        refused = error
    if refused:
        assert isinstance(found, BrokenEngineSet)
        assert found.problem == refused.reason
        return type(refused).__name__
    assert EngineManifest.from_json(manifest.to_json()) == manifest
    assert isinstance(found, EngineSet)
    assert found.manifest == manifest
    # Part of a path.
    assert Path(manifest.name).name == manifest.name
    fitting = fit(found, state.bundle.manifest, MACHINE)
    if not isinstance(fitting, Form):
        return "not-fitting"
    assert str(Choice(manifest.backend, fitting, found))
    # The graphs and the machine are those that it was built for.
    assert manifest.sources == state.built.sources
    for role in manifest.engines:
        try:
            path, size = found.verified(role)
        except SamrtError as error:
            return f"fitting-{type(error).__name__}"
        assert (path.parent, size.bytes) == (state.path.parent, path.stat().st_size)
    return "taken"


def mutate(data: bytes, rng: random.Random) -> bytes:
    return mutate_json(data, rng)
