"""Builds the engines as users do, and compares each with the float32 graphs in ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bundles
import models
from work import NotHereError, Work, WrongResultError

from phases import tensorrt
from samrt.engines.flavours import FLAVOURS

_BUILD_SECONDS = 100


def run(work: Work) -> None:
    flavours = [flavour for flavour in FLAVOURS if tensorrt.runs(work, flavour)]
    if work.smoke:
        flavours = [flavour for flavour in FLAVOURS if _builds(work, flavour)]
    if not flavours:
        raise NotHereError(f"neither TensorRT nor TensorRT-RTX runs on this device: {_reasons(work)}")
    wrong = []
    for model in models.chosen(work.smoke):
        reference: Any = None
        for lowering in bundles.lowerings(work.smoke):
            bundle = bundles.path_of(work.folder, model, lowering)
            for flavour in flavours:
                name = f"{flavour} {model}_{lowering}"
                built = work.attempt(name, "build", call=lambda bundle=bundle, flavour=flavour: _build(bundle, flavour))
                if built is None:
                    wrong.append(name)
                if built is None or work.smoke:
                    continue
                reference = reference or _reference(bundle)
                found = work.attempt(
                    name,
                    "check",
                    call=lambda bundle=bundle, flavour=flavour, reference=reference: _check(bundle, flavour, reference),
                )
                if found is None or found["past_tolerance"]:
                    wrong.append(name)
    if wrong:
        raise WrongResultError(f"not built, not run, or not within tolerance of ONNX Runtime: {', '.join(wrong)}")


def usable(work: Work, model: str) -> list[tuple[str, str]]:
    """Flavour and lowering of the engines of a model that were found correct."""
    found = work.of("engines")
    return [
        (flavour, lowering)
        for flavour in FLAVOURS
        for lowering in bundles.LOWERINGS
        if found.get(f"{flavour} {model}_{lowering}", {}).get("check", {}).get("past_tolerance") == []
    ]


def _builds(work: Work, flavour: str) -> bool:
    attempts = work.of("tensorrt").get(flavour, {}).get("attempts", {})
    return "stage" in attempts.get("default", {}) and attempts["default"]["stage"] != "imported"


def _reasons(work: Work) -> str:
    found = work.of("tensorrt")
    return "; ".join(f"{flavour}: {found.get(flavour, {}).get('reason', 'not tried')}" for flavour in FLAVOURS)


def _build(bundle: Path, flavour: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "samrt", "build", str(bundle), "--backend", flavour]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    said = (ended.stdout + ended.stderr).strip()
    if ended.returncode:
        raise RuntimeError(f"samrt build ended with {ended.returncode}: {said[-600:]}")
    files = {str(file.relative_to(bundle)): file.stat().st_size for file in sorted((bundle / "engines").rglob("*.*"))}
    return {"seconds": round(time.monotonic() - began, 2), "said": said.splitlines()[-8:], "files": files}


def _reference(bundle: Path) -> Any:
    from samrt.backends.session import open_session
    from samrt.bundle.folder import open_bundle
    from samrt.verification.compare import make_reference

    opened = open_bundle(bundle)
    with open_session(opened, "onnxruntime") as session:
        return make_reference(opened.manifest.contract, session.encoder.run, session.decoder.run)


def _check(bundle: Path, flavour: str, reference: Any) -> dict[str, Any]:
    from samrt.backends.session import open_session
    from samrt.bundle.folder import open_bundle
    from samrt.bundle.precisions import PRECISIONS
    from samrt.verification.compare import compare, past_tolerance

    with open_session(open_bundle(bundle), flavour) as session:
        figures = compare(reference, session.encoder.run, session.decoder.run, PRECISIONS["fp16"].tolerance)
        chosen = str(session.choice)
    lowest = min(of_prompt["mask_iou"] for of_prompt in figures["prompts"].values())
    return {
        "ran": chosen,
        "lowest_mask_iou": lowest,
        "figures": figures,
        "past_tolerance": past_tolerance(figures, PRECISIONS["fp16"].tolerance),
    }
