"""What each kernel takes of a multiprocessor, by the compiler's own report, held against the committed table.

    cmake -S . -B build/report -DSAMRT_RESOURCE_REPORT=ON && cmake --build build/report -j
    python kernels/resources.py build/report              compare with kernels/resources.json
    python kernels/resources.py build/report --update     write it, after a change that was meant

What fails: a kernel of instances.def or an architecture that was not compiled; a spill or other use of local memory;
fewer blocks per multiprocessor than in the table or than tiles.h asks for; and, with the version of nvcc that made the
table, more registers. Another version allocates registers differently, which matters only where a block fewer fits.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER / "resources.json"

# Of a multiprocessor, from the CUDA C++ Programming Guide's table of compute capabilities: all of these architectures
# have 64 K registers, a quarter for each of four schedulers, which a warp gets in pieces of 256.
REGISTERS_OF_A_SCHEDULER = 16384
SCHEDULERS = 4
REGISTER_PIECE = 256
SHARED_KIB = {"80": 164, "86": 100, "87": 164, "89": 100, "90": 228, "100": 228, "110": 228, "120": 100}
SHARED_OF_THE_SYSTEM = 1024  # taken from each block's share

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_STATIC_SHARED = re.compile(r"(\d+) bytes smem")
_ATTENTION = re.compile(r"attention_kernel<(\w+), (\d+), (\d+), (true|false)>")


@dataclass(frozen=True)
class Usage:
    """Of one kernel on one architecture, in bytes but for the registers of a thread.

    Attributes:
        blocks: that fit on a multiprocessor, by the rows of what attends to itself ("14", "64"); attention only.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared: int
    blocks: Mapping[str, int]


Usages = dict[str, dict[str, Usage]]  # by kernel and architecture


@dataclass(frozen=True)
class Measured:
    """What a build folder says; `tiles` as kernels/tools/print_tiles.cpp prints them."""

    nvcc: str
    tiles: list[dict[str, Any]]
    kernels: Usages


def read_build(build: Path) -> Measured:
    """The reports beside the object files of a build with SAMRT_RESOURCE_REPORT."""
    note = json.loads((build / "samrt_build.json").read_text())
    done = subprocess.run([build / "samrt_print_tiles"], capture_output=True, text=True, check=True)
    tiles = json.loads(done.stdout)
    # Not every file that lies there: a kernel that was taken out leaves its report behind.
    commands = [shlex.split(entry["command"]) for entry in json.loads((build / "compile_commands.json").read_text())]
    reports = [build / f"{command[command.index('-o') + 1]}.ptxas" for command in commands]
    text = "\n".join(path.read_text() for path in reports if path.exists())
    return Measured(note["nvcc"], tiles, read_report(text, tiles))


def read_report(text: str, tiles: Sequence[Mapping[str, Any]]) -> Usages:
    """What ptxas -v printed."""
    found: Usages = {}
    # Function properties of device functions that were not inlined come in between; the entry's own come last.
    pieces = _ENTRY.split(text)
    names = _demangled(pieces[1::3])
    for name, architecture, piece in zip(names, pieces[2::3], pieces[3::3], strict=True):
        registers, local = _USED.search(piece), _LOCAL.findall(piece)
        if registers is None or not local:
            raise SystemExit(f"cannot read ptxas's report of {name} for {architecture}:\n{piece[:500]}")
        stack, stores, loads = (max(column) for column in zip(*(map(int, row) for row in local), strict=True))
        shared = _STATIC_SHARED.search(piece)
        static = int(shared[1]) if shared else 0
        blocks = _blocks(name, architecture, int(registers[1]), static, tiles)
        found.setdefault(name, {})[architecture] = Usage(int(registers[1]), stack, stores, loads, static, blocks)
    return found


def _demangled(symbols: Sequence[str]) -> list[str]:
    if not symbols:
        return []
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    # "void samrt::name<arguments>(parameters)": the parameters say nothing more.
    return [
        re.sub(r"^void |samrt::|\(anonymous namespace\)::|\([^()]*\)$", "", line) for line in done.stdout.split("\n")
    ]


def _tile(name: str, tiles: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    match = _ATTENTION.fullmatch(name)
    if match is None:
        return None
    per_tile = [tile for tile in tiles if tile["head_dim"] == int(match[2])]
    return per_tile[int(match[3])]


def _blocks(
    name: str, architecture: str, registers: int, static: int, tiles: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    tile = _tile(name, tiles)
    if tile is None or architecture not in SHARED_KIB:
        return {}
    of_a_warp = -(-32 * registers // REGISTER_PIECE) * REGISTER_PIECE
    by_registers = SCHEDULERS * (REGISTERS_OF_A_SCHEDULER // of_a_warp) // (tile["threads"] // 32)
    return {side: min(by_registers, fit) for side, fit in _by_shared(architecture, static, tile).items()}


def _by_shared(architecture: str, static: int, tile: Mapping[str, Any]) -> dict[str, int]:
    """How many blocks the shared memory of a multiprocessor holds."""
    per_block = {side: size + static + SHARED_OF_THE_SYSTEM for side, size in tile["shared_bytes"].items()}
    return {side: SHARED_KIB[architecture] * 1024 // size for side, size in per_block.items()}


def instances() -> list[str]:
    """The attention kernels that should be there."""
    lines = (FOLDER / "attention" / "instances.def").read_text().splitlines()
    return [f"attention_kernel<{line[9:-1]}>" for line in lines if line.startswith("INSTANCE(")]


def problems(measured: Measured, table: Mapping[str, Any]) -> list[str]:
    """What is wrong with a build, one line each."""
    found = []
    known = table["kernels"]
    found += [
        f"{name}: not compiled, though instances.def lists it" for name in instances() if name not in measured.kernels
    ]
    found += [f"{name}: in the table, and not compiled" for name in known if name not in measured.kernels]
    for name, by_architecture in measured.kernels.items():
        found += [f"{name}: not compiled for {lacking}" for lacking in SHARED_KIB if lacking not in by_architecture]
        for architecture, usage in by_architecture.items():
            limits = known.get(name, {}).get(architecture)
            complaints = _of_its_own(usage, architecture, _tile(name, measured.tiles))
            if limits is None:
                complaints.append("not in the table")
            else:
                complaints += _against(usage, limits, same_nvcc=measured.nvcc == table["nvcc"])
            found += [f"{name} for {architecture}: {complaint}" for complaint in complaints]
    return found


def _of_its_own(usage: Usage, architecture: str, tile: Mapping[str, Any] | None) -> list[str]:
    found = []
    if usage.stack or usage.spill_stores or usage.spill_loads:
        found.append(
            f"local memory: a stack of {usage.stack} bytes, {usage.spill_stores} bytes of spill stores and "
            f"{usage.spill_loads} of spill loads"
        )
    # What a shape is meant for is its least size: windows for some, so the best of the two is what it can do.
    # tiles.h asks it of registers: 100 KB of shared memory hold fewer blocks of some shapes.
    if tile is not None and usage.blocks:
        fit, shared = max(usage.blocks.values()), max(_by_shared(architecture, usage.static_shared, tile).values())
        if fit < min(tile["blocks"], shared):
            found.append(f"{fit} blocks fit, and tiles.h means {tile['blocks']}")
    return found


def _against(usage: Usage, limits: Mapping[str, Any], same_nvcc: bool) -> list[str]:
    found = []
    if same_nvcc and usage.registers > limits["registers"]:
        found.append(f"{usage.registers} registers, and {limits['registers']} in the table")
    if usage.static_shared > limits["static_shared"]:
        found.append(f"{usage.static_shared} bytes of static shared memory, and {limits['static_shared']} in the table")
    for side, blocks in limits["blocks"].items():
        if usage.blocks.get(side, 0) < blocks:
            found.append(f"{usage.blocks.get(side, 0)} blocks fit with {side} rows, and {blocks} in the table")
    return found


def as_table(measured: Measured) -> str:
    """The table as JSON, a line for each kernel and architecture."""
    kernels = []
    for name, by_architecture in sorted(measured.kernels.items()):
        order = sorted(by_architecture, key=int)
        rows = ",\n".join(f'   "{key}": {json.dumps(asdict(by_architecture[key]))}' for key in order)
        kernels.append(f"  {json.dumps(name)}: {{\n{rows}\n  }}")
    tiles = ",\n".join(f"  {json.dumps(tile)}" for tile in measured.tiles)
    listed = ",\n".join(kernels)
    return f'{{\n "nvcc": {json.dumps(measured.nvcc)},\n "tiles": [\n{tiles}\n ],\n "kernels": {{\n{listed}\n }}\n}}\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build folder of CMake with SAMRT_RESOURCE_REPORT")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    arguments = parser.parse_args()
    measured = read_build(arguments.build)
    if arguments.update:
        TABLE.write_text(as_table(measured))
    found = problems(measured, json.loads(TABLE.read_text()))
    print("\n".join(found) or f"{len(measured.kernels)} kernels, nvcc {measured.nvcc}: as in the table")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
