"""The attention kernels' own source, run on the CPU: results against float64, addresses, missing barriers.

And what stands in for the GPU there (tests/kernels/host), which is checked first. Nothing here is a result of a GPU.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_builds import ROOT, host_build, needs, sanitized_environment
from oracle import segment_anything

_CHECKS = ROOT / "tests" / "kernels"
sys.path.insert(0, str(_CHECKS))
from check_attention import CHECKS, HOST_CHECKS  # noqa: E402
from reference import Tensors, attention  # noqa: E402

_SECONDS = 600

# What the stand-in says of kernels that are wrong, by the check in check_shim_*.cpp.
_IN_FLIGHT = "use-after-poison"
_DEADLOCK = "deadlock, each thread waits for others"
_STOPPED = {
    "first_group_too_early": _IN_FLIGHT,
    "last_group_too_early": _IN_FLIGHT,
    "ldmatrix_too_early": r"thread \d+: ldmatrix at .*: a copy to byte \d+ of shared memory is under way",
    "two_copies_to_one_place": "cp.async at .*: a copy to byte 0 of shared memory is under way",
    "never_waited": "the kernel ended before the copy of .* was committed and waited for",
    "never_committed": "the kernel ended before the copy of .* was committed and waited for",
    "copy_to_misaligned": "cp.async at .*: byte 8 of shared memory is not aligned to 16",
    "copy_from_misaligned": "cp.async at .*: the global address 0x[0-9a-f]+ is not aligned to 16",
    "copy_past_the_end": "cp.async at .*: 16 bytes from byte 64 on are not within the 64 bytes of shared memory",
    "copy_past_the_source": r"heap-buffer-overflow[^\0]*thread 0: AddressSanitizer stopped here",
    "no_shared_memory": "the launch asked for no shared memory",
    "ldmatrix_misaligned": "thread 7: ldmatrix at .*: byte 116 of shared memory is not aligned to 16",
    "ldmatrix_past_the_end": "thread 31: ldmatrix at .*: 16 bytes from byte 512 on are not within the 512 bytes",
    "ldmatrix_half_outside": "thread 31: ldmatrix at .*: 16 bytes from byte 496 on are not within the 504 bytes",
    "ldmatrix_of_global": "thread 3: ldmatrix at .*: 16 bytes from byte -?[0-9]+ on are not within",
    "write_past_the_end": r"heap-buffer-overflow[^\0]*WRITE of size 1",
    "read_past_the_end": r"heap-buffer-overflow[^\0]*READ of size 4",
    "misaligned_piece": "misaligned address",
    "some_lanes": rf"{_DEADLOCK}[^\0]*threads 0 to 15: in __syncwarp[^\0]*threads 16 to 31: ended",
    "ended_lane": rf"{_DEADLOCK}[^\0]*threads 32 to 39: in __shfl_xor_sync[^\0]*threads 40 to 40: ended",
    "different_collectives": rf"{_DEADLOCK}[^\0]*threads 0 to 15: in __syncwarp[^\0]*threads 16 to 31: in a vote",
    "barrier_in_some_warps": r"__syncthreads at .*, but thread \d+ waits in that of ",
    "different_barriers": r"__syncthreads at .*, but thread \d+ waits in that of ",
    "divergent_mma": r"mma f16 at .*, but lane \d+ of the warp is in that of ",
    "part_of_a_warp": "__syncwarp at .*: mask fffffffe is not the whole warp's",
}


def _names(*files: str) -> list[str]:
    """The checks of check_shim_*.cpp."""
    return [
        name for file in files for name in re.findall(r'^    \{"(\w+)", ', (_CHECKS / file).read_text(), re.MULTILINE)
    ]


_SOUND = _names("check_shim_layouts.cpp", "check_shim_copies.cpp", "check_shim_order.cpp", "check_shim_faults.cpp")
_RACES = _names("check_shim_races.cpp")


def _check_shim(target: str, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(host_build(target) / target), name],
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _expect_stopped(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode not in (0, 2), "it ran to its end"
    assert re.search(message, done.stderr), done.stderr[-4000:]


@pytest.mark.parametrize("name", _SOUND)
def test_the_stand_in_for_the_gpu(name: str) -> None:
    done = _check_shim("check_shim", name)
    if name in _STOPPED:
        _expect_stopped(done, _STOPPED[name])
    else:
        assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", _RACES)
def test_the_race_detector(name: str) -> None:
    done = _check_shim("check_shim_races", name)
    if name.startswith("race_"):
        _expect_stopped(done, r"samrt host: block \(\d, 0, 0\), thread \d+: race: an? .* of 0x[0-9a-f]+, ")
    else:
        assert done.returncode == 0, done.stderr[-4000:]


def test_all_checks_of_the_stand_in_are_known() -> None:
    listed = subprocess.run([str(host_build("check_shim") / "check_shim")], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == _SOUND + _RACES
    assert _STOPPED.keys() <= set(_SOUND)


def _run(names: Sequence[str], library: Path, environment: dict[str, str]) -> dict[str, str]:
    """What check_attention.py says of each check; it starts anew behind one that a sanitizer stops."""
    said: dict[str, str] = {}
    left = list(names)
    while left:
        command = [sys.executable, str(_CHECKS / "check_attention.py"), str(library), *left]
        # Its matrices are small, and two processes share the machine.
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, env=environment | one_thread, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            output, errors = done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            output, errors = (error.stdout or b"").decode(errors="replace"), str(error)
        parts = re.split(r"^check .*\n", output, flags=re.MULTILINE)[1:]
        if not parts:
            return said | dict.fromkeys(left, errors)
        said |= dict(zip(left, parts, strict=False))
        last = left[len(parts) - 1]
        if "passed in" not in said[last]:
            said[last] += errors
        left = left[len(parts) :]
    return said


@functools.cache
def _attention(target: str, names: tuple[str, ...]) -> dict[str, str]:
    """All checks on one build, in two processes side by side."""
    library = host_build(target) / f"lib{target}.so"
    environment = sanitized_environment() if target == "samrt_kernels_host" else dict(os.environ)
    with ThreadPoolExecutor() as pool:
        halves = pool.map(lambda half: _run(half, library, environment), (names[::2], names[1::2]))
        return {name: said for half in halves for name, said in half.items()}


def _expect_passed(target: str, names: tuple[str, ...], name: str) -> None:
    needs("cmake", "g++")
    said = _attention(target, names)[name]
    assert "passed in" in said, said[-6000:]


_ALL = (*CHECKS, *HOST_CHECKS)
# Of each way through the kernel one: its barriers do not depend on numbers.
_RACE_CASES = ("5x7", "17x16", "3x65", "windows of 14, batch 2", "without bias, 5x70")


@pytest.mark.parametrize("name", _ALL)
def test_attention(name: str) -> None:
    _expect_passed("samrt_kernels_host", _ALL, name)


@pytest.mark.parametrize("name", _RACE_CASES)
def test_attention_has_no_races(name: str) -> None:
    _expect_passed("samrt_kernels_races", _RACE_CASES, name)


@pytest.mark.parametrize(("grid", "window"), [((5, 4), 0), ((6, 9), 4), ((3, 2), 7), ((8, 4), 4)])
def test_the_reference_is_metas(grid: tuple[int, int], window: int) -> None:
    vit = segment_anything().modeling.image_encoder
    heads, head_dim, side = 2, 8, (window, window) if window else grid
    torch.manual_seed(0)
    module = vit.Attention(heads * head_dim, heads, use_rel_pos=True, input_size=side).double().requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    # Its last layer is not the kernel's.
    module.proj = torch.nn.Identity()
    x = torch.randn(2, *grid, heads * head_dim, dtype=torch.float64)
    windows, padded = vit.window_partition(x, window) if window else (x, grid)
    expected = module(windows)
    if window:
        expected = vit.window_unpartition(expected, window, padded, grid)
    tensors = Tensors(
        module.qkv(x).reshape(2, *grid, 3, heads, head_dim).numpy(),
        module.qkv.bias.reshape(3, heads, head_dim).numpy(),
        module.rel_pos_h.numpy(),
        module.rel_pos_w.numpy(),
        window,
    )
    np.testing.assert_allclose(attention(tensors).out, expected.flatten(1, 2).numpy(), rtol=1e-11, atol=1e-12)
