"""The pre- and postprocessing kernels on the CPU, and their Python side.

What is checked is in tests/kernels/check_image.py and check_masks.py, which a GPU runs too.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_builds import ROOT, host_build, sanitized_environment
from pycocotools import mask as coco

import samrt.kernels.image
from samrt.bundle.contract import Normalization
from samrt.errors import BackendError
from samrt.kernels.image import (
    MASK_STATS,
    MaskGeometry,
    MasksArgs,
    PreprocessArgs,
    Preprocessing,
    masks_workspace_bytes,
    preprocess_workspace_bytes,
)
from samrt.kernels.library import Kernels

_CHECKS = ROOT / "tests" / "kernels"
sys.path.append(str(_CHECKS))

import check_masks  # noqa: E402

META = Normalization("mean_std", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_SECONDS = 600


def _run_checks(script: str, library: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, str(_CHECKS / script), str(library)]
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    lines = done.stdout.splitlines()
    every = importlib.import_module(Path(script).stem).CHECKS
    assert [line for line in lines if line.startswith("check ")] == [f"check {name}" for name in every]
    assert len([line for line in lines if line.startswith("passed in ")]) == len(every)


@pytest.mark.parametrize("script", ["check_image.py", "check_masks.py"])
def test_the_kernels_do_as_the_cpu_path_and_stay_within_memory(script: str) -> None:
    library = host_build() / "libsamrt_kernels_host.so"
    _run_checks(script, library, sanitized_environment())


@pytest.mark.parametrize("script", ["check_image.py", "check_masks.py"])
def test_no_two_threads_race(script: str) -> None:
    library = host_build("samrt_kernels_races") / "libsamrt_kernels_races.so"
    _run_checks(script, library, dict(os.environ))


# pycocotools' arrays do not know numpy 2's copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (61, 47)])
def test_the_run_lengths_of_the_checks_are_cocos(shape: tuple[int, int], share: float) -> None:
    mask = (np.random.default_rng(1).random(shape) < share).astype(np.uint8)
    lengths = check_masks.run_lengths(mask).tolist()
    ours = coco.frPyObjects({"size": list(shape), "counts": lengths}, *shape)
    assert ours == coco.encode(np.asfortranarray(mask))


_STUB = """
#include <stddef.h>
#include "samrt_image.h"
static const char* said = "";
int samrt_kernels_version(void) { return SAMRT_KERNELS_VERSION; }
const char* samrt_kernels_last_error(void) { return said; }
const char* samrt_kernels_architectures(void) { return "87"; }
int samrt_preprocess_workspace(const samrt_preprocess_args* args, size_t* bytes) {
  *bytes = args->height == 0 ? 0 : (size_t)1 << 33;
  said = "no such size";
  return args->height == 0;
}
#define AT(type, field) SAMRT_KERNELS_API size_t at_##type##_##field(void) { return offsetof(type, field); }
#define SIZE(type) SAMRT_KERNELS_API size_t size_##type(void) { return sizeof(type); }
"""
_STRUCTS = {"samrt_preprocess_args": PreprocessArgs, "samrt_masks_args": MasksArgs}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library without kernels that knows where the header's fields are."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler here (Linux only)")
    folder = tmp_path_factory.mktemp("stub")
    fields = {name: [field[0] for field in struct._fields_] for name, struct in _STRUCTS.items()}
    fields["samrt_mask_stats"] = ["area", "above_high", "above_low", "x0", "y0", "x1", "y1", "runs"]
    lines = [f"AT({name}, {field})" for name, names in fields.items() for field in names]
    lines += [f"SIZE({name})" for name in fields]
    (folder / "stub.c").write_text(_STUB + "\n".join(lines) + "\n")
    library = folder / "stub.so"
    command = [compiler, f"-I{ROOT / 'kernels'}", "-shared", "-fPIC", "-o", str(library), str(folder / "stub.c")]
    subprocess.run(command, check=True)
    return library


def _said(stub: Path, name: str) -> int:
    function = ctypes.CDLL(str(stub))[name]
    function.restype = ctypes.c_size_t
    return int(function())


@pytest.mark.parametrize("name", _STRUCTS)
def test_structs_are_laid_out_as_in_the_header(stub: Path, name: str) -> None:
    struct = _STRUCTS[name]
    for field in struct._fields_:
        assert getattr(struct, field[0]).offset == _said(stub, f"at_{name}_{field[0]}"), field[0]
    assert ctypes.sizeof(struct) == _said(stub, f"size_{name}")


def test_the_figures_are_laid_out_as_in_the_header(stub: Path) -> None:
    assert MASK_STATS.fields is not None
    for ours, theirs in {"area": "area", "above_high": "above_high", "box": "x0", "runs": "runs"}.items():
        assert MASK_STATS.fields[ours][1] == _said(stub, f"at_samrt_mask_stats_{theirs}")
    assert np.dtype(MASK_STATS).itemsize == _said(stub, "size_samrt_mask_stats")


def test_sizes_beyond_32_bits_come_back_whole(stub: Path) -> None:
    assert preprocess_workspace_bytes(Kernels(stub), Preprocessing((10, 20), 64, META)) == 1 << 33


def test_the_librarys_reason_is_the_error(stub: Path) -> None:
    with pytest.raises(BackendError, match="samrt_preprocess_workspace: no such size"):
        preprocess_workspace_bytes(Kernels(stub), Preprocessing((0, 20), 64, META))


def test_unknown_names_are_refused(stub: Path) -> None:
    with pytest.raises(BackendError, match="pixels is one of rgb, bgr, nv12_bt601, nv12_bt709, not 'yuyv'"):
        preprocess_workspace_bytes(Kernels(stub), Preprocessing((4, 4), 8, META, "yuyv"))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="precision is one of fp16, fp32, not 'bf16'"):
        masks_workspace_bytes(
            Kernels(stub),
            MaskGeometry(1, 8, 32, (32, 32), (9, 9), precision="bf16"),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("pillow", "size", "first"),
    # 200 x 60 loses 136 rows and 41 columns; 200 x 100 loses 136 and 68; a larger result loses none. 601 x 6 is
    # above 100 : 1, 600 x 6 is not.
    [
        ((13, 0), (200, 60), True),
        ((13, 0), (200, 100), False),
        ((13, 0), (60, 200), False),
        ((13, 0), (50, 10), False),
        ((12, 3), (200, 60), False),
        ((12, 3), (601, 6), True),
        ((12, 3), (600, 6), False),
        ((12, 2), (601, 6), True),
        ((12, 2), (6, 601), False),
        ((12, 1), (601, 6), False),
        ((10, 4), (601, 6), False),
    ],
)
def test_tall_images_go_down_first_where_pillow_does(
    monkeypatch: pytest.MonkeyPatch, pillow: tuple[int, int], size: tuple[int, int], first: bool
) -> None:
    monkeypatch.setattr(samrt.kernels.image, "_PILLOW", pillow)
    assert Preprocessing(size, 64, META).vertical_first is first


def test_long_images_that_grow_do_not_go_down_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samrt.kernels.image, "_PILLOW", (12, 3))
    assert not Preprocessing((101, 1), 128, META).vertical_first
