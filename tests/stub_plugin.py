"""A stand-in for libsamrt_plugin.so: the C functions that samrt asks it for, and no kernel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from samrt.kernels.library import KERNELS_VERSION, PLUGIN_VARIABLE

_SOURCE = """
int samrt_kernels_version(void) { return VERSION; }
const char* samrt_kernels_architectures(void) { return "87;89;110"; }
const char* samrt_kernels_last_error(void) { return "tile 2 is off by 0.3"; }
int samrt_attention_self_test(void* stream) { (void)stream; return CODE; }
#ifdef PLUGIN
void* getCreators(int* count) { *count = 0; return 0; }
#endif
void samrt_plugin_on_error(void (*handler)(const char*)) { (void)handler; }
"""


def compile_stub(folder: Path, version: int = KERNELS_VERSION, self_test: int = 0, plugin: bool = True) -> Path:
    """The library, of a version of the kernels, whose self test returns a code; 0 is passed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    source, library = folder / "stub.c", folder / "libsamrt_plugin.so"
    source.write_text(_SOURCE)
    flags = [f"-DVERSION={version}", f"-DCODE={self_test}", *(["-DPLUGIN"] if plugin else []), "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    return library


def use_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name it as the plugin's library."""
    monkeypatch.setenv(PLUGIN_VARIABLE, str(path))
    return path
