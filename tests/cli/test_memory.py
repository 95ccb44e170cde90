"""Memory: masks of many prompts one at a time, and one line where it runs out."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import samrt
from samrt.errors import BackendError, InputError, Remedy

Run = Callable[..., tuple[int, str, str]]
NUMPY = "Unable to allocate 2.40 GiB for an array with shape (100, 4000, 6000) and data type bool"


def test_the_masks_of_many_boxes_are_never_together_in_memory(run: Run, bundle: Path, folder: Path) -> None:
    height, width = 500, 700
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save("large.png")
    peaks = []
    for boxes in (4, 54):
        words = [word for index in range(boxes) for word in ("--box", f"{index},{index},{index + 50},{index + 60}")]
        tracemalloc.start()
        status, _, _ = run("segment", "large.png", "--bundle", bundle, *words, "--json", "out.json")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert status == 0
    # A fifth of what the other 50 masks would take; their low-res logits take a tenth.
    assert peaks[1] - peaks[0] < 10 * height * width


def test_the_embedding_is_gone_when_the_picture_is_drawn(
    run: Run, bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime keeps all its memory as long as an array of its is in use."""
    made: list[weakref.ref[samrt.Embedding]] = []
    encode = samrt.Model.encode

    def watched(*given: Any, **keywords: Any) -> samrt.Embedding:
        embedding = encode(*given, **keywords)
        made.append(weakref.ref(embedding))
        return embedding

    def draw(image: Any, *_: object) -> Any:
        assert [each() for each in made] == [None]
        return image

    monkeypatch.setattr(samrt.Model, "encode", watched)
    monkeypatch.setattr("samrt.cli.results.draw_overlay", draw)
    assert run("segment", "photo.png", "--bundle", bundle, "--point", "9,9")[0] == 0
    assert len(made) == 1


def _raised(error: Exception, cause: Exception | None = None) -> Any:
    def encode(*_: object, **__: object) -> None:
        raise error from cause

    return encode


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((100, 4000, 6000), np.dtype(bool)),
        BackendError("the encoder failed: std::bad_alloc"),
        ImportError("libaom.so.3: failed to map segment from shared object"),
        BackendError(
            "ONNX Runtime failed: [ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node."
            " Name:'node_add' Status Message: bfc_arena.cc:360 void* AllocateRawInternal(size_t, bool)\n"
            "Failed to allocate memory for requested buffer of size 12582912\n; check the free memory and the inputs"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        cv2.error("OpenCV(4.10) error: (-4:Insufficient memory) Failed to allocate 288000000 bytes"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_out_of_memory_is_one_line_that_says_so(
    run: Run, folder: Path, bundle: Path, error: Exception, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = _raised(InputError("photo.png is damaged; copy it again"), error) if wrapped else _raised(error)
    monkeypatch.setattr(samrt.Model, "encode", raised)
    status, out, err = run("segment", "photo.png", "--bundle", bundle, "--point", "1,2")
    assert (status, out) == (1, "")
    assert err.startswith("samrt: error: out of memory: ")
    assert err.count("\n") == 1
    assert "damaged" not in err
    assert "free memory" in err
    assert "Non-zero status" not in err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_a_remedy_for_it_is_kept(run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = BackendError("TensorRT cannot build: OutOfMemory", Remedy("build with a smaller {max_batch}"))
    monkeypatch.setattr(samrt.Model, "encode", _raised(error))
    err = run("segment", "photo.png", "--bundle", bundle, "--point", "1,2")[2]
    assert err == "samrt: error: out of memory: TensorRT cannot build: OutOfMemory; build with a smaller --max-batch\n"


def test_names_of_files_are_no_reason(run: Run, folder: Path) -> None:
    err = run("segment", "out of memory.png", "--point", "1,2")[2]
    assert err.startswith("samrt: error: there is no image file at out of memory.png")


def test_other_errors_pass(run: Run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samrt.Model, "encode", _raised(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        run("segment", "photo.png", "--bundle", bundle, "--point", "1,2")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept elsewhere in other ways")
def test_under_a_real_limit(folder: Path, bundle: Path) -> None:
    Image.fromarray(np.zeros((3000, 4000, 3), np.uint8)).save("large.png")
    code = (
        "import resource, sys, onnxruntime, cv2, PIL.Image, samrt.cli.results, samrt.model\n"
        "from samrt.cli import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["segment", "large.png", "--bundle", str(bundle), "--point", "9,9", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "out of memory" in done.stderr.splitlines()[-1]
    assert not Path("large_masks.png").exists()
