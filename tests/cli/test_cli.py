"""The command line as a whole, and `info`, `doctor` and `export`: output, exit codes and messages."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_bundle import rewrite_manifest, write_toy_bundle

import samrt
from samrt.bundle.folder import open_bundle
from samrt.cli import main
from samrt.progress import Progress

Run = Callable[..., tuple[int, str, str]]


def test_debug_shows_the_traceback(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMRT_DEBUG", "1")
    status, _, err = run("info", "absent")
    assert status == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("samrt: error: there is no bundle")


def test_ctrl_c_is_130(run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samrt.Model, "encode", interrupted)
    status, out, err = run("segment", "photo.png", "--bundle", bundle, "--point", "1,2")
    assert (status, out, err) == (130, "", "samrt: interrupted\n")


# info


def test_info_prints_what_the_bundle_is(run: Run, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "bundle")
    verification = {
        "seed": 0,
        "tolerance": {"embedding_relative_l2": 1e-5, "mask_iou": 0.9999},
        "figures": {
            "embedding_relative_l2": 4.25e-6,
            "prompts": {"box": {"mask_iou": 1.0, "logits_relative_l2": 3e-6}},
        },
    }
    (form,) = open_bundle(bundle).manifest.forms
    rewrite_manifest(
        bundle, exporter={"samrt": "1.2.3", "opset": 18}, forms=(replace(form, verification=verification),)
    )
    status, out, _ = run("info", bundle)
    lines = [" ".join(line.split()) for line in out.splitlines()]

    assert status == 0
    assert "model toy toy, 24 parameters" in lines
    normalization = "RGB mean 123.675 116.28 103.53, deviation 58.395 57.12 57.375"
    assert f"image 64 x 64, longest side, padded; {normalization}" in lines
    assert "feature image_embeddings, 8 x 16 x 16" in lines
    assert "masks 4 of 64 x 64 logits, mask above 0; one by token" in lines
    assert "checkpoint toy.pth, 24 B" in lines
    assert "exported by samrt 1.2.3, opset 18" in lines
    assert "in image float32 [batch, 3, 64, 64]" in lines
    assert "out iou_predictions float32 [prompts, 4]" in lines
    assert lines[lines.index("fp32-dense: compared with torch at export") + 1 :] == [
        "seed 0",
        "embedding relative l2 4.25e-06 tolerance 1e-05",
        "prompts: box: mask iou 1 tolerance 0.9999",
        "prompts: box: logits relative l2 3e-06",
    ]
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        assert any(line.startswith(name) and line.endswith(entry["sha256"]) for line in lines)


def test_info_json_is_the_manifest_and_the_result_of_the_check(run: Run, bundle: Path) -> None:
    status, out, _ = run("info", bundle, "--json")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert status == 0
    assert json.loads(out) == {"path": str(bundle), "verified": True, **manifest, "engines": []}


def test_info_refuses_a_bundle_that_was_changed(run: Run, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "changed")
    weights = tmp_path / "changed" / "encoder.weights"
    content = bytearray(weights.read_bytes())
    content[7] ^= 1
    weights.write_bytes(content)
    for words in (("info", tmp_path / "changed"), ("info", tmp_path / "changed", "--json")):
        status, out, err = run(*words)
        assert (status, out) == (1, "")
        assert "encoder.weights" in err


# doctor


def test_doctor_prints_every_finding_and_that_the_runtime_works(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 0
    assert re.search(rf"^ok +numpy +{re.escape(np.__version__)}$", out, re.MULTILINE)
    assert out.endswith("The runtime works.\n")


def test_doctor_fails_with_the_remedy_where_the_runtime_is_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, out, _ = run("doctor")
    assert status == 1
    assert re.search(r"^broken +ONNX Runtime .*\n.*pip install.* onnxruntime$", out, re.MULTILINE)

    status, out, _ = run("doctor", "--json")
    assert status == 1
    report = json.loads(out)
    assert report["runtime_works"] is False
    assert [finding["name"] for finding in report["findings"] if finding["status"] == "broken"] == ["ONNX Runtime"]


# export


def test_export_hands_the_options_on_and_shows_progress(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def export(checkpoint: Path, output: Path, options: object, progress: Progress, base: Path | None) -> None:
        calls.append((checkpoint, output, options, base))
        progress.say("tracing")

    pipeline = ModuleType("samrt_export.pipeline")
    pipeline.__dict__.update(ExportOptions=SimpleNamespace, export=export)
    monkeypatch.setitem(sys.modules, "samrt_export.pipeline", pipeline)

    status, out, err = run("export", "sam.pth", "-o", "b")
    assert (status, out) == (0, "")
    assert re.fullmatch(r"\[ +[\d.]+ s\] tracing\n", err)
    defaults = SimpleNamespace(model=None, image_size=None, lowering=("auto",), precisions=("fp32",))
    assert calls.pop() == (Path("sam.pth"), Path("b"), defaults, None)

    run(
        "export", "sam.pth", "-o", "b", "--model", "vit_b", "--image-size", "512",
        "--lowering", "auto,plugin", "--precision", "fp32,fp16", "--base", "whole.pth",
    )  # fmt: skip
    chosen = SimpleNamespace(model="vit_b", image_size=512, lowering=("auto", "plugin"), precisions=("fp32", "fp16"))
    assert calls.pop()[2:] == (chosen, Path("whole.pth"))


def test_export_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find_spec(name, *rest)
    )
    status, out, err = run("export", "sam.pth", "-o", "b")
    assert (status, out) == (1, "")
    assert err == (
        "samrt: error: export needs onnxscript, not installed here; "
        "run in a checkout of samrt: pip install '.[export]'\n"
    )


@pytest.mark.parametrize("words", [(), ("--lowering", "auto,x"), ("--image-size", "big")])
def test_export_refuses_wrong_usage(words: tuple[str, ...]) -> None:
    output = ("-o", "b") if words else ()
    with pytest.raises(SystemExit) as stopped:
        main(["export", "sam.pth", *output, *words])
    assert stopped.value.code == 2


# the whole


@pytest.mark.parametrize("command", ["segment", "info", "doctor", "export"])
def test_help_of_each_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"  samrt {command} " in text
    assert max(map(len, text.splitlines())) <= 120


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"samrt {samrt.__version__}\n"


@pytest.mark.parametrize("words", [[], ["frobnicate"]])
def test_no_or_an_unknown_command_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_imports_neither_the_engine_nor_the_other_commands() -> None:
    code = (
        "import sys; from samrt.cli import main\n"
        "try: main(['segment', '--help'])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "samrt.cli.segment" in loaded
    assert not loaded & {"numpy", "cv2", "PIL", "onnxruntime", "torch", "samrt.cli.info", "samrt.cli.export"}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently there")
@pytest.mark.parametrize("words", [["--help"], ["doctor"]])
def test_a_closed_pipe_is_quiet(words: list[str]) -> None:
    # Buffered, as in a shell: argparse would hide the error of a write that fails at once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "samrt", *words]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_need_not_be_text(folder: Path, bundle: Path) -> None:
    name = b"caf\xe9.png"
    os.rename(b"photo.png", name)
    words = ["segment", name, "--bundle", bundle, "--point", "9,9", "-o", b"\xe9.png", "--json", b"\xe9.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-m", "samrt", *words], capture_output=True, env=environment, check=True)
    assert b"wrote \\udce9.png\nwrote \\udce9.json\n" in done.stdout
    assert json.loads(Path(os.fsdecode(b"\xe9.json")).read_text())["image"] == os.fsdecode(name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["doctor"], ["segment", "--help"]])
def test_a_full_disk_under_stdout_is_one_line(words: list[str], unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "samrt", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"samrt: error: cannot write to stdout: No space left on device; check .*\n", done.stderr)
