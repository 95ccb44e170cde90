"""All kernels compile for every architecture, and take of a multiprocessor what kernels/resources.json says."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kernel_builds import ROOT, device_build

from samrt.kernels.library import load_kernels


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


resources = _load(ROOT / "kernels" / "resources.py")
TABLE = json.loads((ROOT / "kernels" / "resources.json").read_text())
TILES = [
    {"name": "a", "head_dim": 64, "threads": 128, "blocks": 2, "shared_bytes": {"14": 30000, "64": 49152}},
    {"name": "a", "head_dim": 80, "threads": 128, "blocks": 1, "shared_bytes": {"14": 40000, "64": 57344}},
]


@pytest.fixture(scope="module")
def library() -> Path:
    """libsamrt_kernels.so for every architecture."""
    return device_build() / "libsamrt_kernels.so"


def test_registers_spills_and_shared_memory_are_as_in_the_table(library: Path) -> None:
    found = resources.problems(resources.read_build(library.parent), TABLE)
    assert not found, "\n".join(found) + "\nkernels/resources.py says how to look, and how to update the table"


def test_the_table_is_of_these_tile_shapes(library: Path) -> None:
    assert resources.read_build(library.parent).tiles == TABLE["tiles"]


def test_every_architecture_is_inside_the_newest_also_as_ptx(library: Path) -> None:
    assert load_kernels(library).architectures == ("80", "86", "87", "89", "90", "100", "110", "120", "120-ptx")


def test_exports_what_the_headers_declare_and_nothing_else(library: Path) -> None:
    declared = set()
    for header in (ROOT / "kernels").glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        declared |= set(re.findall(r"SAMRT_KERNELS_API [^;]*?(samrt_\w+)\(", text))
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout

    assert {line.split()[-1] for line in listed.splitlines()} == declared


def test_needs_no_cuda_library_beside_the_driver(library: Path) -> None:
    listed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", listed)
    assert needed
    assert not [name for name in needed if "cuda" in name]


# What ptxas says of one kernel, as nvcc 13.0 prints it.
_REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{symbol}' for 'sm_87'
ptxas info    : Function properties for {symbol}
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers{shared}, 432 bytes cmem[0]
ptxas info    : Compile time = 572.946 ms
"""
_SYMBOL = "_ZN5samrt16attention_kernelI6__halfLi64ELi0ELb1EEEvNS_19AttentionParametersE"
_NAME = "attention_kernel<__half, 64, 0, true>"


def _usage(registers: int = 200, stack: int = 0, stores: int = 0, loads: int = 0, shared: str = "") -> Any:
    report = _REPORT.format(symbol=_SYMBOL, registers=registers, stack=stack, stores=stores, loads=loads, shared=shared)
    return resources.read_report(report, TILES)[_NAME]["87"]


def test_reads_the_compilers_report() -> None:
    usage = _usage(181, 24, 20, 28, ", 1024 bytes smem")
    assert (usage.registers, usage.stack, usage.spill_stores, usage.spill_loads) == (181, 24, 20, 28)
    assert usage.static_shared == 1024


@pytest.mark.parametrize(
    ("registers", "shared", "blocks"),
    [
        # A warp's registers come in pieces of 256, and each of four schedulers has 16,384: three warps at 32 * 168.
        (168, "", 3),
        (169, "", 2),
        (255, "", 2),
        (128, "", 3),  # 164 KiB of shared memory for blocks of 48 KiB and the system's one each
        (128, ", 6144 bytes smem", 2),
    ],
)
def test_counts_the_blocks_that_fit(registers: int, shared: str, blocks: int) -> None:
    assert _usage(registers, shared=shared).blocks["64"] == blocks


def _problems(usage: Any, nvcc: str = "13.0.88", **limits: Any) -> list[str]:
    """Of a build whose kernels are all like `usage`, against a table of 200 registers and two blocks."""
    names = resources.instances()
    table_usage = {"registers": 200, "static_shared": 0, "blocks": {"14": 2, "64": 2}, **limits}
    everywhere = dict.fromkeys(resources.SHARED_KIB, usage)
    measured = resources.Measured(nvcc, TILES * 8, dict.fromkeys(names, everywhere))
    table = {"nvcc": "13.0.88", "kernels": {name: dict.fromkeys(everywhere, table_usage) for name in names}}
    # Tiles of one kind stand for all.
    return [line.removeprefix(f"{_NAME} for 87: ") for line in resources.problems(measured, table) if _NAME in line]


def test_what_is_as_in_the_table_passes() -> None:
    assert _problems(_usage(200)) == []
    assert _problems(_usage(190)) == []


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        ({"registers": 208}, "208 registers, and 200 in the table"),
        ({"stack": 8}, "a stack of 8 bytes"),
        ({"stores": 4, "loads": 4}, "4 bytes of spill stores and 4 of spill loads"),
        ({"shared": ", 16 bytes smem"}, "16 bytes of static shared memory, and 0 in the table"),
    ],
)
def test_what_is_more_than_in_the_table_fails(usage: dict[str, Any], said: str) -> None:
    found = _problems(_usage(**usage))
    assert len(found) == len(resources.SHARED_KIB), "one line for each architecture"
    assert said in " ".join(found)


def test_another_nvcc_may_take_more_registers_as_long_as_the_blocks_fit() -> None:
    assert _problems(_usage(255), nvcc="13.5.37") == []

    fewer = replace(_usage(255), blocks={"14": 1, "64": 1})
    assert "1 blocks fit with 64 rows, and 2 in the table" in " ".join(_problems(fewer, nvcc="13.5.37"))
    assert "1 blocks fit, and tiles.h means 2" in " ".join(_problems(fewer, blocks={"14": 1, "64": 1}))


def test_tiles_h_asks_for_blocks_only_where_shared_memory_holds_them() -> None:
    """Three blocks of these tiles fit into 100 KiB, five into 164."""
    three = replace(_usage(128), blocks={"14": 3, "64": 2})
    tiles = [{**tile, "blocks": 4} for tile in TILES]
    measured = resources.Measured("13.0.88", tiles, {_NAME: dict.fromkeys(resources.SHARED_KIB, three)})
    found = resources.problems(measured, {"nvcc": "13.0.88", "kernels": {}})
    said = [line for line in found if line.endswith("3 blocks fit, and tiles.h means 4")]
    assert [line.split()[5].rstrip(":") for line in said] == ["80", "87", "90", "100", "110"]


def test_a_kernel_or_an_architecture_that_is_missing_fails() -> None:
    empty = resources.Measured("13.0.88", TILES, {})
    assert f"{_NAME}: not compiled, though instances.def lists it" in resources.problems(empty, {"kernels": {}})
    assert "gone: in the table, and not compiled" in resources.problems(empty, {"kernels": {"gone": {}}})

    one = resources.Measured("13.0.88", TILES, {_NAME: {"87": _usage()}})
    found = resources.problems(one, {"nvcc": "13.0.88", "kernels": {}})
    assert f"{_NAME}: not compiled for 110" in found
    assert f"{_NAME} for 87: not in the table" in found


def test_the_table_covers_every_instance_and_architecture() -> None:
    for name in resources.instances():
        assert sorted(TABLE["kernels"][name], key=int) == list(resources.SHARED_KIB)
