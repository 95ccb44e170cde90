"""How many threads this process can use at once: what the kernel, the container and the user allow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Limit:
    """One reason for a number of threads: how many it allows, and what it is."""

    threads: int
    reason: str


def default_threads() -> int:
    """How many threads compute where the caller names no number: the smallest of `limits`."""
    return min(limit.threads for limit in limits())


def limits(root: Path = Path("/")) -> list[Limit]:
    """What limits the number of threads: CPU affinity, the quota of a cgroup, and OMP_NUM_THREADS.

    Where a core runs two threads it counts once, as the second makes matrix products no faster.

    Args:
        root: where the files of /proc and /sys are looked for.
    """
    found = [_affinity(root)]
    quota = min(_quotas(root), default=None)
    if quota is not None:
        found.append(Limit(max(1, math.ceil(quota)), f"cgroup quota of {quota:g} CPUs"))
    wanted = os.environ.get(VARIABLE, "")
    # A list is for nested loops, and its first number for the outermost. What OpenMP ignores is ignored here.
    first = wanted.partition(",")[0].strip()
    if first.isascii() and first.isdigit() and int(first[:9]) > 0:
        found.append(Limit(int(first[:9]), f"{VARIABLE}={wanted}"))
    return found


def _affinity(root: Path) -> Limit:
    existing = os.cpu_count() or 1
    if not hasattr(os, "sched_getaffinity"):
        return Limit(existing, f"{existing} CPUs")
    allowed = os.sched_getaffinity(0)
    cores = len({_siblings(root, cpu) for cpu in allowed})
    shared = f", on {cores} cores" if cores < len(allowed) else ""
    return Limit(cores, f"affinity to {len(allowed)} of {existing} CPUs{shared}")


def _siblings(root: Path, cpu: int) -> str:
    """The CPUs of the same core, or where the kernel does not tell, this one."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in CPUs, of this process's cgroups and those that they lie in."""
    for folder, top, unified in _cgroups(root):
        for each in (folder, *folder.parents):
            # A file that is absent or of another form limits nothing.
            with suppress(OSError, ValueError):
                if unified:
                    quota, period = (each / "cpu.max").read_text().split()
                else:
                    quota, period = ((each / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                if quota != "max" and int(quota) > 0 and int(period) > 0:
                    yield int(quota) / int(period)
            if each == top:
                break


def _cgroups(root: Path) -> Iterator[tuple[Path, Path, bool]]:
    """This process's cgroup that may limit CPU time, where its hierarchy begins, and whether that is version 2."""
    with suppress(OSError, ValueError):
        paths = {}
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths[controllers] = path
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            mount, _, system = line.partition(" - ")
            kind, _, options = system.split(" ", 2)
            inside, top = mount.split(" ")[3:5]
            for controllers, path in paths.items():
                unified = controllers == ""
                if (kind == "cgroup2") if unified else (kind == "cgroup" and "cpu" in _both(controllers, options)):
                    place = root / top.lstrip("/")
                    yield place / _below(inside, path), place, unified


def _below(inside: str, path: str) -> Path:
    """Where a cgroup lies below its mount, which shows `inside`. In a container its path may be one of the host's."""
    visible = Path(path).is_relative_to(inside) and ".." not in Path(path).parts
    return Path(path).relative_to(inside) if visible else Path()


def _both(controllers: str, options: str) -> set[str]:
    return {*controllers.split(",")} & {*options.split(",")}
