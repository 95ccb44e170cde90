"""`training/gpu.sh` from beginning to end, without a GPU: a run of the recipe `dry`, by the clock."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_fixtures import write_data_set, write_decoder

from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import load_model
from training.carry import carry, decoder_of
from training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "training" / "gpu.sh"
SECONDS = 40

# As the script decides.
GPU = shutil.which("nvidia-smi") is not None or any(Path(f"/dev/nvidia{name}").exists() for name in ("0", "ctl"))

# In place of a Python that trains: the first call leaves a checkpoint, or none, and fails; each writes down its words.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"$RUN/calls"
if [ "$(wc -l <"$RUN/calls")" = 1 ]; then
    if [ -n "$CHECKPOINT" ]; then touch "$RUN/checkpoint.pt"; fi
    sleep 1
    exit "$STATUS"
fi
"""


@pytest.mark.parametrize(
    ("status", "checkpoint", "seconds", "again", "words"),
    [
        (1, "yes", 200, True, []),
        (134, "yes", 200, True, ["trunk_gpu", "--eager"]),
        (1, "yes", 80, False, []),
        (1, "", 200, False, []),
        (130, "yes", 200, False, []),
    ],
)
def test_a_run_that_fails_goes_on_uncompiled_where_there_is_time(
    tmp_path: Path, status: int, checkpoint: str, seconds: int, again: bool, words: list[str]
) -> None:
    programs, run = tmp_path / "programs", tmp_path / "run"
    programs.mkdir()
    run.mkdir()
    # With a GPU that does not answer, which is not none, and with many cores.
    for name, text in (("python", STAND_IN), ("nvidia-smi", "#!/bin/sh\nexit 9\n"), ("nproc", "#!/bin/sh\necho 64\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    places = {"OUT": str(tmp_path / "out"), "RUN": str(run), "PYTHON": str(programs / "python")}
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), str(seconds), *words],
        env={**os.environ, **places, "PATH": path, "STATUS": str(status), "CHECKPOINT": checkpoint},
        capture_output=True,
        text=True,
        check=False,
    )

    first, *others = (run / "calls").read_text().splitlines()
    recipe, weights = ("trunk_gpu", "start") if words else ("gpu", "decoder")
    assert first.startswith(f"-m training.train {recipe} --data .cache/carried/packed.npz --{weights} ")
    options = " ".join([" --processes 15 --device cuda", *words[1:]])
    assert first.endswith(f" --seconds {seconds}{options}")
    assert done.returncode == (0 if again else status)
    assert len(others) == again
    assert ("goes on from its last checkpoint" in done.stderr) == again
    for call in others:
        assert call.endswith(f"{options} --eager")
        left = re.search(r"--started (\S+) --seconds (\d+) ", call)
        assert left
        assert seconds - 60 < int(left[2]) < seconds
        assert float(left[1]) > float(re.search(r"--started (\S+) ", first)[1])  # type: ignore[index]


def test_results_are_there_before_the_end_of_a_run_that_is_killed(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    (run / "log.jsonl").write_bytes(b"log")
    (run / "model.pth").write_bytes(b"weights" * 4000)
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\nexec sleep 15\n")
    stand_in.chmod(0o755)
    places = {"OUT": str(out), "RUN": str(run), "PYTHON": str(stand_in), "PART": "9K", "EVERY": "1"}
    process = subprocess.Popen(["bash", str(SCRIPT), "50"], env={**os.environ, **places}, start_new_session=True)
    try:
        until = time.monotonic() + 14
        came: dict[str, bytes] = {}
        while (came.get("model.pth"), came.get("log.jsonl")) != (
            b"weights" * 4000,
            b"log",
        ) and time.monotonic() < until:
            time.sleep(0.1)
            parts = sorted(out.glob("model.pth.part*"))
            came = {"model.pth": b"".join(part.read_bytes() for part in parts if part.exists())}
            came |= {path.name: path.read_bytes() for path in out.glob("log.jsonl")}
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert came == {"model.pth": b"weights" * 4000, "log.jsonl": b"log"}


@pytest.mark.skipif(GPU, reason="would train on the GPU that is here")
def test_a_dry_run_ends_in_time_with_a_decayed_model(tmp_path: Path) -> None:
    discs = write_data_set(tmp_path / "data") / "discs"
    for name, _ in RECIPES["gpu"].sources:
        shutil.copytree(discs, tmp_path / "data" / name)
    weights = "decoder.pth", decoder_of(write_decoder(tmp_path / "decoder.pth"))
    carry(tmp_path / "data", weights, tmp_path / "carried")
    out = tmp_path / "out"
    places = {"OUT": str(out), "CARRIED": str(tmp_path / "carried"), "RUN": str(tmp_path / "run"), "PART": "4M"}

    def run(seconds: int) -> tuple[subprocess.CompletedProcess[str], float]:
        begun = time.monotonic()
        done = subprocess.run(
            ["bash", str(SCRIPT), str(seconds)],
            env={**os.environ, **places, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, time.monotonic() - begun

    seconds = SECONDS
    done, took = run(seconds)
    # Two cores at load 6 ended in time; at load 9 to 11 it asked for 76 and 78 seconds, and that is what it gets.
    asked = re.search(r"seconds are too few: .* give (\d+) seconds or more", done.stderr)
    if done.returncode and asked:
        seconds = int(1.5 * int(asked[1]))
        assert SECONDS < seconds < 4 * SECONDS
        done, took = run(seconds)

    assert done.returncode == 0, done.stderr
    # How long processes take to go is not in a run's hands; all files are there before.
    assert took < seconds + 10
    assert "a dry run on the CPU" in done.stderr
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert sorted({line["stage"] for line in lines}) == [0, 1, 2, 3, 4]
    assert lines[-1]["lr"] == 0
    record = json.loads((out / "model.json").read_text())
    assert record["recipe_name"] == "dry"
    assert record["clock"]["calls"][0]["seconds"] == seconds
    assert record["clock"]["took_seconds"] < seconds
    parts = sorted(out.glob("model.pth.part*"))
    assert len(parts) > 1
    assert all(part.stat().st_size <= 4 * 2**20 for part in parts)
    joined = b"".join(part.read_bytes() for part in parts)
    assert joined == (tmp_path / "run" / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(joined)
    assert load_model(read_checkpoint(tmp_path / "model.pth")).image_size == RECIPES["dry"].stages[-1].side
