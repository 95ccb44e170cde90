"""The Python side of the kernels: finding, loading and calling the library, here with C stubs and with the host build.

What the kernels compute is checked elsewhere (tests/kernels, benchmarks/gpu).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_builds import ROOT, host_build, sanitized_environment

from samrt.errors import BackendError, InputError
from samrt.kernels import library as kernels
from samrt.kernels.library import (
    KERNELS_VARIABLE,
    KERNELS_VERSION,
    PLUGIN_VARIABLE,
    AttentionShape,
    AttentionTensors,
    find_kernels_library,
    find_plugin_library,
    load_kernels,
)

SHAPE = AttentionShape(batch=2, grid_h=5, grid_w=7, heads=3, head_dim=80, window=4, precision="bf16")
TENSORS = AttentionTensors(qkv=0x10, out=0x20, qkv_bias=0x30, rel_pos_h=0x40, rel_pos_w=0x50)

# Says in its error what it was called with. Compiled with the real header: a struct laid out otherwise in Python shows.
_STUB = """
#include <stdio.h>
#include "samrt_kernels.h"
static char said[300];
int samrt_kernels_version(void) { return VERSION; }
const char* samrt_kernels_last_error(void) { return said; }
const char* samrt_kernels_architectures(void) { return "80;87;90-ptx"; }
int32_t samrt_attention_tiles(void) { return 2; }
const char* samrt_attention_tile_name(int32_t tile) { return tile == 0 ? "64x1x64" : tile == 1 ? "112x2x16" : NULL; }
int samrt_attention_self_test(samrt_stream stream) { return stream == NULL ? 0 : 3; }
int samrt_attention(const samrt_attention_args* a, samrt_stream stream) {
  if (a->batch == 0) return 0;
  snprintf(said, sizeof said, "%zx %zx %zx %zx %zx, %d %d %d %d %d %d, %d %d, %zx, %zu", (size_t)a->qkv,
           (size_t)a->qkv_bias, (size_t)a->rel_pos_h, (size_t)a->rel_pos_w, (size_t)a->out, a->batch, a->grid_h,
           a->grid_w, a->heads, a->head_dim, a->window, a->format, a->tile, (size_t)stream, sizeof *a);
  return 1;
}
"""


def _compiled(folder: Path, source: str = _STUB, version: int = KERNELS_VERSION) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler here (Linux only)")
    (folder / "stub.c").write_text(source)
    library = folder / "stub.so"
    flags = [f"-DVERSION={version}", f"-I{ROOT / 'kernels'}", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(folder / "stub.c")], check=True)
    return library


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where nothing is named and nothing is installed; the folder where it would be."""
    for name in (KERNELS_VARIABLE, PLUGIN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kernels, "LIBRARY_FOLDER", tmp_path / "lib")
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib"


def test_the_version_is_the_headers() -> None:
    header = (ROOT / "kernels" / "samrt_kernels.h").read_text()
    assert re.findall(r"#define SAMRT_KERNELS_VERSION (\d+)", header) == [str(KERNELS_VERSION)]


def test_passes_every_argument_in_its_place(tmp_path: Path) -> None:
    library = load_kernels(_compiled(tmp_path))
    with pytest.raises(BackendError) as raised:
        library.attention(SHAPE, TENSORS, stream=0x60, tile=1)

    size = 5 * 8 + 8 * 4
    assert str(raised.value) == f"samrt_attention: 10 30 40 50 20, 2 5 7 3 80 4, 1 1, 60, {size}"


def test_what_is_not_given_is_null_and_the_tile_the_tables(tmp_path: Path) -> None:
    library = load_kernels(_compiled(tmp_path))
    with pytest.raises(BackendError, match="10 0 0 0 20, 1 5 7 3 64 0, 0 -1, 0, 72"):
        library.attention(AttentionShape(1, 5, 7, 3, 64), AttentionTensors(0x10, 0x20))


def test_returns_where_the_library_does(tmp_path: Path) -> None:
    library = load_kernels(_compiled(tmp_path))
    library.attention(AttentionShape(0, 5, 7, 3, 64), AttentionTensors(0x10, 0x20))
    library.self_test()


def test_a_code_without_words_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="samrt_attention_self_test: failed with code 3"):
        load_kernels(_compiled(tmp_path)).self_test(stream=1)


def test_refuses_an_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fp16, bf16, not 'fp32'"):
        load_kernels(_compiled(tmp_path)).attention(
            AttentionShape(1, 5, 7, 3, 64, precision="fp32"),  # type: ignore[arg-type]
            TENSORS,
        )


def test_refuses_a_size_that_c_would_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grid_h=4294967300"):
        load_kernels(_compiled(tmp_path)).attention(AttentionShape(1, 2**32 + 4, 7, 3, 64), TENSORS)


def test_tells_what_the_library_holds(tmp_path: Path) -> None:
    library = load_kernels(_compiled(tmp_path))

    assert library.attention_tiles() == ("64x1x64", "112x2x16")
    assert library.architectures == ("80", "87", "90-ptx")
    assert load_kernels(library.path) is library


@pytest.mark.parametrize(
    ("capability", "runs"),
    # Machine code for 8.0 and 8.7, PTX for 9.0.
    [("7.5", False), ("8.0", True), ("8.6", True), ("8.9", True), ("9.0", True), ("11.0", True), ("12.1", True)],
)
def test_knows_which_gpus_it_runs_on(tmp_path: Path, capability: str, runs: bool) -> None:
    assert load_kernels(_compiled(tmp_path)).runs_on(capability) is runs


@pytest.mark.parametrize(
    ("capability", "runs"), [("8.6", False), ("8.7", True), ("8.9", False), ("9.0", False), ("11.0", True)]
)
def test_without_ptx_only_its_own_major_versions(tmp_path: Path, capability: str, runs: bool) -> None:
    library = _compiled(tmp_path, _STUB.replace("80;87;90-ptx", "87;110"))
    assert load_kernels(library).runs_on(capability) is runs


def test_machine_code_for_desktops_does_not_run_on_a_jetson(tmp_path: Path) -> None:
    assert not load_kernels(_compiled(tmp_path, _STUB.replace("80;87;90-ptx", "80"))).runs_on("8.7")


def test_refuses_another_version(tmp_path: Path) -> None:
    path = _compiled(tmp_path, version=KERNELS_VERSION + 1)
    with pytest.raises(BackendError, match=rf"is of version {KERNELS_VERSION + 1}.*needs {KERNELS_VERSION}.*Install"):
        load_kernels(path)


def test_refuses_what_is_no_library_of_samrt(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no kernel library of samrt"):
        load_kernels(_compiled(tmp_path, "int something_else;"))


def test_refuses_what_is_no_library(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(BackendError, match=r"text\.so does not load.*Install samrt again"):
        load_kernels(text)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="there is no kernel library"):
        load_kernels(tmp_path / "absent.so")


@pytest.mark.parametrize(
    ("variable", "find"), [(KERNELS_VARIABLE, find_kernels_library), (PLUGIN_VARIABLE, find_plugin_library)]
)
def test_a_named_file_comes_first_and_must_exist(
    no_variables: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, find: object
) -> None:
    assert callable(find)
    for name in ("libsamrt_kernels.so", "libsamrt_plugin.so"):
        (no_variables / name).touch()
    named = tmp_path / "named.so"
    monkeypatch.setenv(variable, str(named))
    with pytest.raises(BackendError, match=rf"{variable} names .*correct or unset it"):
        find()

    named.touch()
    assert find() == named


def test_finds_what_is_installed(no_variables: Path) -> None:
    for find, name in ((find_kernels_library, "libsamrt_kernels.so"), (find_plugin_library, "libsamrt_plugin.so")):
        (no_variables / name).touch()
        assert find() == no_variables / name


def test_says_why_the_installation_has_none(no_variables: Path) -> None:
    note = {"kernels": "built", "plugin": "not built: no headers", "remedy": "get them", "nvcc": "13.0.88"}
    (no_variables / "build.json").write_text(json.dumps({**note, "architectures": ["87"]}))

    with pytest.raises(BackendError, match=r"not built: no headers\. To get it: get them"):
        find_plugin_library()
    with pytest.raises(BackendError, match=r"it was built, and is gone since\. To get it: in a checkout"):
        find_kernels_library()


@pytest.mark.parametrize("note", [None, "", "[]", '{"kernels": "built"}', '{"else": 1}'])
def test_does_without_a_note_or_with_a_damaged_one(no_variables: Path, note: str | None) -> None:
    if note is not None:
        (no_variables / "build.json").write_text(note)
    with pytest.raises(BackendError, match=r"left no note about it\. To get it: in a checkout"):
        find_kernels_library()


def test_importing_it_imports_neither_torch_nor_cuda() -> None:
    code = (
        "import sys, samrt.kernels.library\n"
        "print([name for name in ('torch', 'cuda', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


_ON_HOST = """
import sys
from samrt.errors import BackendError, InputError
from samrt.kernels.library import AttentionShape, AttentionTensors, load_kernels

library = load_kernels(sys.argv[1])
assert library.architectures == ("host",) and not library.runs_on("8.7"), library.architectures
assert library.attention_tiles(), "no tile shapes"
library.attention(AttentionShape(0, 64, 64, 12, 64), AttentionTensors(0, 0))
try:
    library.attention(AttentionShape(1, 64, 64, 12, 72), AttentionTensors(16, 16))
except BackendError as error:
    assert "head_dim must be 64 or 80, not 72" in str(error), error
else:
    raise AssertionError("took a head dimension of 72")
print("passed")
"""


def test_the_real_librarys_interface_is_what_python_expects() -> None:
    library = host_build() / "libsamrt_kernels_host.so"
    done = subprocess.run(
        [sys.executable, "-c", _ON_HOST, str(library)],
        env=sanitized_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "passed\n", done.stderr[-4000:]
