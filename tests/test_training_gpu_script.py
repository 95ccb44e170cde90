"""`training/gpu.sh` from beginning to end, without a GPU: a run of the recipe `dry`, by the clock."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_fixtures import write_data_set, write_decoder

from samrt_export.checkpoint import read_checkpoint
from samrt_export.families import load_model
from training.carry import carry
from training.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="would train on the GPU that is here")


def test_a_dry_run_ends_in_time_with_a_decayed_model(tmp_path: Path) -> None:
    discs = write_data_set(tmp_path / "data") / "discs"
    for name, _ in RECIPES["gpu"].sources:
        shutil.copytree(discs, tmp_path / "data" / name)
    carry(tmp_path / "data", write_decoder(tmp_path / "decoder.pth"), tmp_path / "carried")
    out = tmp_path / "out"
    places = {"OUT": str(out), "CARRIED": str(tmp_path / "carried"), "RUN": str(tmp_path / "run")}

    def run(seconds: int) -> tuple[subprocess.CompletedProcess[str], float]:
        begun = time.monotonic()
        done = subprocess.run(
            ["bash", str(ROOT / "training" / "gpu.sh"), str(seconds)],
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
    assert all(part.stat().st_size <= 15 * 2**20 for part in parts)
    (tmp_path / "model.pth").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert load_model(read_checkpoint(tmp_path / "model.pth")).image_size == RECIPES["dry"].stages[-1].side
