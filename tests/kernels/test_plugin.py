"""The TensorRT plugin's own code, driven without TensorRT and without a GPU, and the kernels' self test.

The C++ in tests/kernels/plugin calls the plugin as TensorRT would, with the host build of the kernels behind it, under
AddressSanitizer.
"""

from __future__ import annotations

import subprocess

from kernel_builds import host_build


def _run(program: str) -> list[str]:
    done = subprocess.run(
        [str(host_build(program) / program)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout.splitlines()


def test_the_plugin_does_what_tensorrt_asks_of_it() -> None:
    assert _run("drive_plugin")[-1] == "all checks passed"


def test_the_self_test_passes_with_the_kernels_and_fails_with_broken_ones() -> None:
    said = _run("drive_self_test")
    assert said[0] == "none: 0"
    assert said[-1] == "all as it should be"
