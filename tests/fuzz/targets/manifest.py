"""manifest.json, read by itself and in a bundle's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz.mutations import mutate_json
from toy_bundle import write_toy_bundle

import samrt
from samrt.bundle.manifest import Manifest


def corpus(folder: Path) -> list[bytes]:
    text = (write_toy_bundle(folder / "toy") / "manifest.json").read_bytes()
    default = (samrt.default_bundle() / "manifest.json").read_bytes()
    return [text, default, text[:-1], b"", b"[]", b"[" * 900, text.replace(b"toy.pth", b"\xff"), b"\xef\xbb\xbf" + text]


def setup(folder: Path) -> Path:
    return write_toy_bundle(folder / "toy")


def run(data: bytes, state: Path) -> str:
    (state / "manifest.json").write_bytes(data)
    opened = _outcome(lambda: samrt.open_bundle(state))
    read = _outcome(lambda: Manifest.from_json(data))
    if read != "taken":
        assert opened == read
        return read
    manifest = Manifest.from_json(data)
    written = manifest.to_json()
    again = Manifest.from_json(written.encode())
    assert again == manifest
    assert again.to_json() == written
    # What is inside is well formed, but the files beside it may be others.
    return opened if opened == "taken" else f"files-{opened}"


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except samrt.SamrtError as error:
        return type(error).__name__
    return "taken"


mutate = mutate_json
