"""How many threads ONNX Runtime gets: CPU affinity, cgroup quotas, OMP_NUM_THREADS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from samrt.cpus import VARIABLE, default_threads, limits
from samrt.doctor.runtime import examine

pytest_plugins = ("toy_fixtures",)

# Before a test changes it.
HERE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
VERSION_2 = "30 1 0:26 {inside} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = (
    "32 1 0:29 {inside} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 1 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def tree(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    """/proc and /sys with a cgroup, and files by their path below /sys/fs/cgroup."""
    contents = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts}
    contents |= {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def reasons(root: Path) -> dict[str, int]:
    return {limit.reason: limit.threads for limit in limits(root)}


AFFINITY = {"affinity to 8 of 16 CPUs": 8}


@pytest.mark.parametrize(
    ("cpu_max", "found"),
    [
        ("max 100000\n", {}),
        ("200000 100000\n", {"cgroup quota of 2 CPUs": 2}),
        ("150000 100000\n", {"cgroup quota of 1.5 CPUs": 2}),
        ("5000 100000\n", {"cgroup quota of 0.05 CPUs": 1}),
        ("nonsense\n", {}),
        ("1 0\n", {}),
        ("", {}),
    ],
)
def test_quota_of_version_2(tmp_path: Path, cpu_max: str, found: dict[str, int]) -> None:
    root = tree(tmp_path, "0::/box\n", VERSION_2.format(inside="/"), {"box/cpu.max": cpu_max})
    assert reasons(root) == AFFINITY | found


@pytest.mark.parametrize(("quota", "found"), [("-1\n", {}), ("250000\n", {"cgroup quota of 2.5 CPUs": 3}), ("x\n", {})])
def test_quota_of_version_1(tmp_path: Path, quota: str, found: dict[str, int]) -> None:
    files = {"cpu,cpuacct/box/cpu.cfs_quota_us": quota, "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}
    cgroup = "9:memory:/box\n3:cpu,cpuacct:/box\n0::/\n"
    assert reasons(tree(tmp_path, cgroup, VERSION_1.format(inside="/"), files)) == AFFINITY | found


def test_the_smallest_quota_of_the_groups_around_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "100000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}
    root = tree(tmp_path, "0::/a/b\n", VERSION_2.format(inside="/"), files)
    assert reasons(root) == AFFINITY | {"cgroup quota of 1 CPUs": 1}


@pytest.mark.parametrize(
    ("cgroup", "inside"), [("/docker/12", "/docker/12"), ("/../..", "/"), ("/elsewhere", "/docker")]
)
def test_in_a_container_the_mounts_root_is_its_own_group(tmp_path: Path, cgroup: str, inside: str) -> None:
    root = tree(tmp_path, f"0::{cgroup}\n", VERSION_2.format(inside=inside), {"cpu.max": "400000 100000"})
    assert reasons(root) == AFFINITY | {"cgroup quota of 4 CPUs": 4}


def test_without_proc_and_sys_only_the_affinity_counts(tmp_path: Path) -> None:
    assert reasons(tmp_path) == AFFINITY


def test_two_threads_of_a_core_count_once(tmp_path: Path) -> None:
    for cpu in range(8):
        place = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert reasons(tmp_path) == {"affinity to 8 of 16 CPUs, on 4 cores": 4}


@pytest.mark.parametrize(
    ("value", "threads"),
    [("3", 3), ("3,2", 3), (" 3 ", 3), ("64", 8), ("9" * 30, 8), ("0", 8), ("-1", 8), ("abc", 8), ("", 8), ("٣", 8)],
)
def test_openmps_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, threads: int) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert min(reasons(tmp_path).values()) == threads


def test_doctor_says_the_number_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    found = next(finding for finding in examine() if finding.name == "CPU")
    assert found.detail.startswith("ONNX Runtime uses 1 thread by default: affinity to 8 of 16 CPUs")
    assert found.detail.endswith("OMP_NUM_THREADS=1")
    assert default_threads() == 1


SCRIPT = """
import sys, time, samrt
from pathlib import Path
model = samrt.load(sys.argv[1], threads=int(sys.argv[2]) or None)
time.sleep(0.2)  # the kernel lists a thread that has ended for a moment longer
for task in sorted(Path("/proc/self/task").iterdir()):
    status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
    print(status["Cpus_allowed_list"].strip())
"""


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
@pytest.mark.parametrize(("threads", "tasks"), [(0, 1), (3, 5)])
def test_under_taskset_no_thread_leaves_the_cpus_that_are_allowed(toy_bundle: Path, threads: int, tasks: int) -> None:
    """Two sessions of N threads, one of which is the caller's: 1 + 2 (N - 1)."""
    cpu = str(min(HERE))
    command = ["taskset", "-c", cpu, sys.executable, "-c", SCRIPT, str(toy_bundle), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [cpu] * tasks
