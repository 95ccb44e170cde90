"""Builds that are refused or that fail: the bundle is left as it was."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from leftovers import leave
from toy_builds import FULL, everything_in, named
from toy_bundle import rewrite_manifest

from samrt import work_folder
from samrt.bundle.folder import open_bundle
from samrt.engines.builder import bundle as building
from samrt.engines.builder.bundle import build_bundle
from samrt.engines.builder.engine import BuildOptions
from samrt.engines.flavours import Flavour
from samrt.engines.manifest import EngineManifest
from samrt.errors import BackendError, BundleError, InputError, OutputError
from samrt.progress import Lines

pytest_plugins = ("tensorrt_fixtures", "toy_fixtures")


@pytest.mark.usefixtures("without_gpu")
def test_a_bundle_without_the_precision(own_bundle: Path) -> None:
    with pytest.raises(BackendError, match="nothing to build fp16 engines from: it holds fp32-dense; export it with"):
        build_bundle(own_bundle, replace(FULL, precision="fp16"))


@pytest.mark.usefixtures("without_gpu")
def test_the_form_for_cpus_is_not_built(own_bundle: Path) -> None:
    form = open_bundle(own_bundle).manifest.forms[0]
    rewrite_manifest(own_bundle, forms=(replace(form, lowering="chunked"),))
    with pytest.raises(BackendError, match="chunked form only, which is for ONNX Runtime; export it with precisions="):
        build_bundle(own_bundle, FULL)


def test_an_unknown_precision(own_bundle: Path) -> None:
    with pytest.raises(InputError, match="unknown precision 'int3'; choose one of fp32, fp16"):
        build_bundle(own_bundle, replace(FULL, precision="int3"))


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(BundleError, match="is a file, and a bundle is a folder"):
        build_bundle(tmp_path / "photo.jpg", FULL)


def test_compute_capabilities_as_text() -> None:
    with pytest.raises(InputError, match=r"compute_capabilities must be a tuple, such as \('8.6',\)"):
        BuildOptions("8.6")  # type: ignore[arg-type]


def test_an_unknown_backend(own_bundle: Path) -> None:
    with pytest.raises(BackendError, match="choose one of tensorrt, tensorrt_rtx"):
        build_bundle(own_bundle, replace(FULL, backend="openvino"))


def test_no_tensorrt_at_all(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "installed_flavours", dict)
    with pytest.raises(BackendError, match=r"pip install '\.\[rtx\]'.*docs/jetson.md"):
        build_bundle(own_bundle, replace(FULL, backend="auto"))


@pytest.mark.usefixtures("without_gpu")
def test_tensorrt_alone_says_what_it_lacks(own_bundle: Path, monkeypatch: pytest.MonkeyPatch, rtx: Flavour) -> None:
    """As on a Jetson without the CUDA bindings, where no GPU is seen."""
    monkeypatch.setattr(building, "installed_flavours", lambda: {"tensorrt": "10.3.0"})
    monkeypatch.setattr(building, "import_flavour", lambda name: replace(rtx, name=name, version="10.3.0"))
    with pytest.raises(BackendError, match=r"builds for the GPU at hand, and none was found.*cuda-core"):
        build_bundle(own_bundle, replace(FULL, backend="auto"))


@pytest.mark.usefixtures("without_gpu")
def test_auto_without_a_gpu_is_rtx(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "installed_flavours", lambda: {"tensorrt": "10.9.0", "tensorrt_rtx": "1.7"})
    assert build_bundle(own_bundle, replace(named("8.9"), backend="auto")).backend == "tensorrt_rtx"


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("full_at", ["the engines", "the manifest", "the flush to the disk"])
def test_a_full_disk_leaves_what_was_there(own_bundle: Path, monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
    build_bundle(own_bundle, named("8.9"))
    before = everything_in(own_bundle)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner, name = {
        "the engines": (Path, "write_bytes"),
        "the manifest": (Path, "write_text"),
        "the flush to the disk": (os, "fsync"),
    }[full_at]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, no_space)
        with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
            build_bundle(own_bundle, named("8.9"))
    assert everything_in(own_bundle) == before


@pytest.mark.usefixtures("without_gpu")
def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def too_late(*_: object) -> None:
        pytest.fail("the build had begun")

    monkeypatch.setattr(building, "build_in_child", too_late)
    monkeypatch.setattr(work_folder, "take", denied)
    with pytest.raises(OutputError, match=os.strerror(errno.EACCES)):
        build_bundle(own_bundle, FULL)
    monkeypatch.undo()


@pytest.mark.parametrize("as_link", [False, True])
def test_engines_where_something_else_is(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch, rtx: Flavour, as_link: bool
) -> None:
    path = own_bundle / "engines"
    path.symlink_to(own_bundle / "nowhere") if as_link else path.write_text("mine")
    monkeypatch.setattr(building, "build_in_child", lambda *_: pytest.fail("the build had begun"))
    with pytest.raises(OutputError, match=r"cannot make the folder .*engines.*move what is there"):
        build_bundle(own_bundle, named("8.9"))
    assert path.is_symlink() if as_link else path.read_text() == "mine"


@pytest.mark.usefixtures("without_gpu")
def test_a_build_that_is_interrupted_while_it_writes(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_bundle(own_bundle, named("8.9"))
    before = everything_in(own_bundle)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EngineManifest, "to_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(own_bundle, named("8.9"))
    assert everything_in(own_bundle) == before


@pytest.mark.usefixtures("without_gpu")
def test_what_killed_builds_left_is_removed_by_a_later_one(own_bundle: Path) -> None:
    name = build_bundle(own_bundle, named("8.9")).name
    engines = own_bundle / "engines"
    (engines / ".mine").mkdir()
    left = [
        leave(engines / name, new="half"),
        leave(engines / "tensorrt-10", trash0a1b2c3d="old"),
        leave(engines / "x"),
    ]
    shutil.copytree(engines / name, left[2] / "whole")
    lines: list[str] = []
    build_bundle(own_bundle, named("8.9"), Lines(lines.append))
    assert {line.split(",")[0] for line in lines} >= {f"removed {work}" for work in left[:2]}
    # The third is an engine set that was killed before it took its name.
    assert {path.name for path in engines.iterdir()} == {name, ".mine", "x"}
