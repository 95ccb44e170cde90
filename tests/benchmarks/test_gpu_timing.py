"""How `benchmarks/gpu` measures times, and the floors that it holds them against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import floors
import models
import timing
from work import Work


class _Recorder:
    """Stands in for the driver: keeps the order of calls; time is their count."""

    l2_bytes = 50 << 20

    def __init__(self) -> None:
        self.calls: list[str] = []

    def memory(self, size: int) -> Any:
        from contextlib import nullcontext

        self.size = size
        return nullcontext(0)

    def fill(self, address: int, size: int, stream: int) -> None:
        self.calls.append(f"fill {size == self.size} {stream}")

    def mark(self, event: int, stream: int) -> None:
        self.calls.append(f"mark {event}")

    def milliseconds(self, start: int, end: int) -> float:
        return float(10 * start + end)

    def new_event(self) -> int:
        self.events = getattr(self, "events", 0) + 1
        return self.events

    def wait(self, stream: int) -> None:
        self.calls.append("wait")


def test_the_cache_is_flushed_before_the_first_event_of_every_run() -> None:
    driver = _Recorder()
    measured = timing.Clock(driver, stream=7).measure(lambda: driver.calls.append("call"), seconds=0)  # type: ignore[arg-type]

    assert measured["runs"] == 10
    assert driver.size >= 4 * driver.l2_bytes
    first = driver.calls.index("fill True 7")
    assert driver.calls[first : first + 40] == ["fill True 7", "mark 1", "call", "mark 2"] * 10
    assert driver.calls[:first] == ["call"] * 3 + ["wait", "call", "wait"], (
        "it warms up, and sees how long a call takes"
    )
    assert measured["gpu_ms"]["median"] == 12
    assert driver.calls[first + 40 :] == ["call", "wait"] * 10


def test_a_summary_has_median_and_spread() -> None:
    found = timing.summary([float(n) for n in range(101)])
    assert found == {"median": 50, "min": 0, "p10": 10, "p90": 90, "max": 100}


def test_a_floor_is_the_longer_of_arithmetic_and_memory(tmp_path: Path) -> None:
    rates = {"half_operations_per_s": 1e12, "bytes_per_s": 1e9}
    counts = {
        "m": {"encoder": {"operations": 3 * 10**12, "bytes": 10**9}, "decoder": {"operations": 1, "bytes": 10**9}}
    }
    work = Work(tmp_path, "floors", smoke=False, deadline=0)
    work.record("rates", value=rates)
    Work(tmp_path, "model_floors", smoke=False, deadline=0).record("models", value=counts)

    assert floors.floor(work, "m", "encoder") == {"ms": 3000, "bound_by": "arithmetic"}
    assert floors.floor(work, "m", "decoder") == {"ms": 1000, "bound_by": "memory"}
    assert "absent" in floors.floor(work, "n", "encoder")
    work.record("rates", value={})
    assert "absent" in floors.floor(work, "m", "encoder")


def test_counts_the_operations_of_a_vit_b() -> None:
    counted = floors.of_encoder(models.configs()["vit_b"][0])
    C, tokens, window, padded, heads, layers, windowed = 768, 64**2, 14**2, 70**2, 12, 12, 8
    # Only qkv is computed on the padding of the windows.
    linear = 2 * 3 * C**2 * (windowed * padded + (layers - windowed) * tokens) + 2 * 9 * C**2 * tokens * layers
    scores = 4 * C * ((layers - windowed) * tokens**2 + windowed * padded * window)
    # Per query and head one dot product with each row and each column of its window or grid.
    bias = 2 * (C // heads) * heads * 2 * ((layers - windowed) * tokens * 64 + windowed * padded * 14)
    ends = 2 * tokens * (3 * 16**2 * C + C * 256 + 9 * 256**2)

    assert counted["operations"] == linear + scores + bias + ends
    small = models.configs()["small"]
    assert (
        floors.of_models({"small": small})["small"]["encoder"]["operations"]
        == floors.of_encoder(small[0])["operations"]
    )
