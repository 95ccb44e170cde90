"""Compiles the versions of the attention kernel that were tried, and counts what the loop over the keys executes.

    python kernels/lab/attention.py --cuobjdump PATH [VERSION ...]    print the counts
    python kernels/lab/attention.py --cuobjdump PATH --write [VERSION ...]    and put them into attention/counts.json
                                                                              and the tables of README.md and
                                                                              docs/kernels.md
    python kernels/lab/attention.py --host [VERSION ...]        run each version on the CPU instead (tests/kernels/host)

It needs nvcc; cuobjdump comes with the CUDA toolkit or as the wheels nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. No
GPU: these are counts of instructions, not times.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LAB = Path(__file__).resolve().parent
ROOT = LAB.parent.parent
sys.path.insert(0, str(ROOT / "kernels"))
import resources  # noqa: E402

COUNTS = LAB / "attention" / "counts.json"
ARCHITECTURES = ("87", "89", "90", "120")
# Dynamic shared memory that a block may have, in KiB; what choose_tile takes.
SHARED_KIB = {"87": 163, "89": 99, "90": 227, "120": 99}
# Multiplications with addition per cycle of a multiprocessor's tensor cores, fp16 with float32 sums: the data sheets'
# dense rates over multiprocessors, clock and two. The second is GeForce, where it has half of what L4 has.
RATES = {"87": (1024,), "89": (512, 256), "90": (2048,), "120": (256,)}
HOST_CASES = (
    "5x7", "17x16", "3x65", "windows of 14, padded", "rising scores", "one term of 60000", "a key of NaN",
    "other contents of shared memory",
)  # fmt: skip


@dataclass(frozen=True)
class Version:
    """Attributes:
    name: as in README.md; `patch` is what it changes of version `base`. The newest is the kernel that is compiled.
    """

    name: str
    base: str | None = None
    patch: str | None = None


VERSIONS = {
    version.name: version
    for version in (
        Version("0"),
        Version("1", "0", "1-xor-addresses.patch"),
        Version("2", "1", "2-advancing-pointers.patch"),
        Version("3", "2", "3-rescale-by-vote.patch"),
        Version("3a", "3", "3a-no-slack.patch"),
        Version("4", "3", "4-two-row-tiles.patch"),
        Version("5"),
        Version("5a", "5", "5a-one-way-of-copying.patch"),
        Version("5b", "5", "5b-one-vote.patch"),
        Version("5c", "5", "5c-prologue.patch"),
        Version("5d", "5b", "5d-next-scores.patch"),
    )
}
NEWEST = "5"


@dataclass(frozen=True)
class Count:
    """One kernel on one architecture, per warp and key tile, where no maximum grows and the window is in the grid.

    Attributes:
        loop: instructions, of which the others are some.
        chosen: tiles.h gives it to this architecture, for a grid of 64 x 64 and heads of 64.
    """

    version: str
    architecture: str
    tile: str
    queries: int
    warps: int
    registers: int
    spilled_bytes: int
    blocks: int
    loop: int
    mma: int
    ldmatrix: int
    copies: int
    lds: int
    shuffles: int
    mufu: int
    chosen: bool


def source_of(version: Version, folder: Path) -> Path:
    """A tree like the project's, as far as the kernels need it, with this version in it."""
    if version.base is None:
        for name in ("kernels", "cmake", "tests/kernels"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("lab", "__pycache__"))
        shutil.copy(ROOT / "CMakeLists.txt", folder)
        attention = folder / "kernels" / "attention"
        if version.name != NEWEST:
            for path in (LAB / "attention" / "baseline").iterdir():
                shutil.copy(path, attention)
        return folder
    source_of(VERSIONS[version.base], folder)
    assert version.patch is not None
    command = [
        "patch",
        "--silent",
        "-p1",
        "-d",
        folder / "kernels" / "attention",
        "-i",
        LAB / "attention" / version.patch,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{version.patch} no longer fits the kernel: {done.stdout}")
    return folder


def run(command: Sequence[object], **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done  # type: ignore[no-any-return]


def tiles_of(folder: Path) -> tuple[list[dict[str, object]], dict[str, str]]:
    """The tile shapes as print_tiles.cpp prints them, and which one each architecture gets."""
    include = f"-I{folder / 'kernels'}"
    run(["g++", "-std=c++17", include, ROOT / "kernels/tools/print_tiles.cpp", "-o", folder / "tiles"])
    choose = folder / "choose.cpp"
    choose.write_text(
        '#include <cstdio>\n#include <cstdlib>\n#include "attention/tiles.h"\nint main(int, char** a) {\n'
        "  puts(samrt::kTileShapes[samrt::choose_tile(atoi(a[1]), 64, 64, 64, 1024 * atoi(a[2]))].name);\n}\n"
    )
    run(["g++", "-std=c++17", include, choose, "-o", folder / "choose"])
    chosen = {each: run([folder / "choose", each, SHARED_KIB[each]]).stdout.strip() for each in ARCHITECTURES}
    return json.loads(run([folder / "tiles"]).stdout), chosen


def count(version: Version, folder: Path, cuobjdump: str) -> Iterator[Count]:
    """For fp16 and heads of 64, the shapes for wide grids."""
    tiles, chosen = tiles_of(source_of(version, folder))
    of_64 = [tile for tile in tiles if tile["head_dim"] == 64]
    for index, tile in enumerate(of_64):
        name = str(tile["name"])
        if name not in chosen.values() and name != "64x1x64":
            continue
        unit = folder / "unit.cu"
        text = (ROOT / "kernels/attention/instance.cu.in").read_text()
        for field, value in (("FORMAT", "__half"), ("HEAD_DIM", "64"), ("TILE", str(index)), ("REL_POS", "true")):
            text = text.replace(f"@{field}@", value)
        unit.write_text(text)
        for architecture in ARCHITECTURES:
            cubin = folder / "unit.cubin"
            flags = ["-std=c++17", "--expt-relaxed-constexpr", "-Xptxas=-v", f"-arch=sm_{architecture}"]
            report = run(["nvcc", *flags, f"-I{folder / 'kernels'}", "-cubin", "-o", cubin, unit]).stderr
            ((usage,),) = [by_arch.values() for by_arch in resources.read_report(report, tiles).values()]
            ways = main_loop(disassembled(cubin, cuobjdump))
            quickest = min(ways, key=len)
            of = Counter(operation(line) for line in quickest)
            warps = int(str(tile["threads"])) // 32
            yield Count(
                version.name, architecture, name, int(name.partition("x")[0]), warps, usage.registers,
                usage.spill_stores + usage.spill_loads, usage.blocks["64"], len(quickest), of["HMMA"],
                of["LDSM"], of["LDGSTS"], of["LDS"], of["SHFL"], of["MUFU"], chosen[architecture] == name,
            )  # fmt: skip


def disassembled(cubin: Path, cuobjdump: str) -> list[tuple[int, str]]:
    # cuobjdump calls nvdisasm.
    path = f"{Path(cuobjdump).parent}{os.pathsep}{os.environ['PATH']}"
    text = run([cuobjdump, "-sass", cubin], env={**os.environ, "PATH": path}).stdout
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", text, re.MULTILINE)
    return [(int(address, 16), line) for address, line in found]


def operation(line: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", line).split()[0].split(".")[0]


def main_loop(lines: list[tuple[int, str]]) -> list[list[str]]:
    """All ways through the innermost loop that has both tensor core instructions and exponentials, and that copy."""
    loops = []
    for address, line in lines:
        target = re.search(r"\bBRA\S*\s+.*?0x([0-9a-f]+)", line)
        if target and int(target[1], 16) < address:
            body = [text for at, text in lines if int(target[1], 16) <= at <= address]
            if any("HMMA" in text for text in body) and any("MUFU.EX2" in text for text in body):
                loops.append((address - int(target[1], 16), int(target[1], 16), address))
    _, first, last = min(loops)
    index = {address: place for place, (address, _) in enumerate(lines)}
    ways: list[list[str]] = []

    def follow(place: int, before: list[str]) -> None:
        done = list(before)
        while lines[place][0] <= last:
            line = lines[place][1]
            done.append(line)
            jump = re.match(r"(@!?U?P\w+\s+)?(?:BRA|CALL)\S*\s+(!?U?P\d.*?,)?.*?0x([0-9a-f]+)", line)
            if jump:
                target = int(jump[3], 16)
                if target == first:
                    ways.append(done)
                elif first < target <= last:
                    follow(index[target], done)
                if not (jump[1] or jump[2]):
                    return
            place += 1

    follow(index[first], [])
    return [way for way in ways if any("LDGSTS" in line for line in way)]


def by_version(counts: Sequence[Count]) -> str:
    """Each version's best shape for each architecture: the one that tiles.h chooses."""
    lines = ["| version | 8.7 | 8.9 | 9.0 | 12.0 |", "|---|---|---|---|---|"]
    for name in VERSIONS:
        cells = []
        for architecture in ARCHITECTURES:
            (one,) = [c for c in counts if (c.version, c.architecture) == (name, architecture) and c.chosen]
            spilled = f", **{one.spilled_bytes} B spilled**" if one.spilled_bytes else ""
            cells.append(f"{one.loop / one.mma:.2f}, {64 * one.ldmatrix / one.mma:.0f}, {one.registers}{spilled}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def before_and_after(counts: Sequence[Count]) -> str:
    lines = [
        "| GPU | version | tile shape | instructions per matrix instruction | registers | blocks | warps "
        "| cycles: shared memory | cycles: issue | cycles: exponentials | cycles: tensor cores |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for architecture in ARCHITECTURES:
        for name in ("0", NEWEST):
            (one,) = [c for c in counts if (c.version, c.architecture) == (name, architecture) and c.chosen]
            # Of a multiprocessor, for 128 queries and 64 keys. The three loads without an address do nothing.
            per = 128 // one.queries * one.warps
            shared = per * (4 * one.ldmatrix + 4 * one.copies + one.lds - 3 + one.shuffles)
            tensor = " / ".join(f"{per * one.mma * 2048 // rate:,}" for rate in RATES[architecture])
            gpu = f"{architecture[:-1]}.{architecture[-1]}"
            cells = (
                gpu, name, f"`{one.tile}`", f"{one.loop / one.mma:.2f}", one.registers, one.blocks,
                one.blocks * one.warps, f"{shared:,}", f"{per * one.loop // 4:,}", f"{2 * per * one.mufu:,}", tensor,
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def put_table(page: Path, name: str, table: str) -> None:
    """Between the marks of this name."""
    marks = (f"<!-- {name}: kernels/lab/attention.py --write -->\n", f"<!-- end of {name} -->")
    head, rest = page.read_text().split(marks[0])
    page.write_text(f"{head}{marks[0]}{table}\n{marks[1]}{rest.split(marks[1])[1]}")


def check_on_host(version: Version, folder: Path) -> None:
    """Builds the version's kernels for fp16 and heads of 64 for the CPU, and runs some checks of attention on them."""
    source_of(version, folder)
    tiles = len(tiles_of(folder)[0]) // 2
    lines = "".join(f"INSTANCE(__half, 64, {tile}, true)\n" for tile in range(tiles))
    (folder / "kernels/attention/instances.def").write_text(lines)
    shutil.rmtree(folder / "kernels/image")
    build = folder / "build"
    run(["cmake", "-S", folder, "-B", build, "-DSAMRT_HOST_KERNELS=ON"])
    run(["cmake", "--build", build, "--target", "samrt_kernels_host", "--parallel", "1"])
    libraries = [run(["g++", f"-print-file-name={name}"]).stdout.strip() for name in ("libasan.so", "libstdc++.so.6")]
    environment = {**os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
    environment["PYTHONPATH"] = str(ROOT)
    checks = ROOT / "tests/kernels/check_attention.py"
    run([sys.executable, checks, build / "libsamrt_kernels_host.so", *HOST_CASES], env=environment)
    print(f"version {version.name}: {len(HOST_CASES)} cases passed on the host", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", help=f"of {', '.join(VERSIONS)}; all")
    parser.add_argument("--cuobjdump", default=shutil.which("cuobjdump"))
    parser.add_argument("--write", action="store_true", help="into counts.json and the pages' tables")
    parser.add_argument("--host", action="store_true", help="check results on the CPU, and count nothing")
    arguments = parser.parse_args()
    counts = []
    for name in arguments.versions or VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.host:
                check_on_host(VERSIONS[name], Path(folder))
                continue
            if arguments.cuobjdump is None:
                raise SystemExit("there is no cuobjdump on the path: give --cuobjdump")
            counts += list(count(VERSIONS[name], Path(folder), arguments.cuobjdump))
    if arguments.write:
        release = re.search(r"V([0-9.]+)", run(["nvcc", "--version"]).stdout)
        nvcc, before = release[1] if release else "", json.loads(COUNTS.read_text())
        if arguments.versions and nvcc != before["nvcc"]:
            raise SystemExit(f"the other versions were counted with nvcc {before['nvcc']}: count all of them anew")
        counted = {each.version for each in counts}
        counts += [Count(**row) for row in before["counts"] if row["version"] not in counted]
        counts.sort(key=lambda each: list(VERSIONS).index(each.version))
        rows = ",\n".join(f"  {json.dumps(asdict(each))}" for each in counts)
        COUNTS.write_text(f'{{\n "nvcc": "{nvcc}",\n "counts": [\n{rows}\n ]\n}}\n')
        put_table(ROOT / "docs" / "kernels.md", "attention counts", before_and_after(counts))
        put_table(LAB / "README.md", "versions", by_version(counts))
    for each in counts:
        print(each)


if __name__ == "__main__":
    main()
