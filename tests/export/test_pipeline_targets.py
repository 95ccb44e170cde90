"""Exports that are refused or fail: what stands at the target is left as it was."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from export_reuse import reuse
from leftovers import leave
from seeded import seeded_checkpoint
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt.bundle.folder import open_bundle
from samrt.bundle.precisions import PRECISIONS, Tolerance
from samrt.errors import ExportError, InputError, OutputError
from samrt.files import sha256_of
from samrt.progress import Lines
from samrt_export import forms, onnx_export, pipeline
from samrt_export.pipeline import ExportOptions, export


def test_refuses_an_unknown_precision(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown precision 'int3'"):
        export(small_checkpoint, tmp_path / "bundle", ExportOptions(precisions="int3"))
    with pytest.raises(InputError, match=r"unknown precision 'fp32,int8'; choose one of fp32, fp16"):
        export(small_checkpoint, tmp_path / "bundle", ExportOptions(precisions=("fp32", "int8")))
    assert not list(tmp_path.iterdir())


def test_refuses_an_unknown_lowering(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown lowering 'sparse'"):
        export(small_checkpoint, tmp_path / "bundle", ExportOptions(lowering="sparse"))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def target(small_bundle: Path, small_checkpoint: Path, tmp_path: Path) -> Path:
    """Where a bundle is already."""
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        reuse(small_bundle, patch)
        export(small_checkpoint, folder / "bundle")
    return folder / "bundle"


def everything_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def assert_unchanged_by(action: Callable[[], object], target: Path, error: type[Exception], match: str) -> None:
    before, folders = everything_in(target.parent), sorted(target.parent.rglob("*"))
    with pytest.raises(error, match=match):
        action()
    assert everything_in(target.parent) == before
    assert sorted(target.parent.rglob("*")) == folders
    open_bundle(target)


def test_replaces_an_older_bundle(
    small_bundle: Path, small_checkpoint: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_bundle(target).manifest
    (target / "engines" / "tensorrt-of-the-older").mkdir(parents=True)
    renamed = target.parent.parent / "renamed.pth"
    shutil.copyfile(small_checkpoint, renamed)
    reuse(small_bundle, monkeypatch)
    lines: list[str] = []
    manifest = export(renamed, target, progress=Lines(lines.append))
    assert before.source.name == "small.pth"
    assert open_bundle(target).manifest == manifest
    assert manifest.source.name == "renamed.pth"
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert not (target / "engines").exists()
    told = [
        "reading",
        "recognised sam vit_d64x4",
        "the engines in the replaced bundle are deleted",
        "running",
        "tracing the fp32 enc",
        "tracing the fp32 dec",
        "comparing",
    ]
    for line, start in zip(lines, [*told, f"wrote {target}"], strict=True):
        assert line.startswith(start)


def test_what_killed_exports_and_builds_left_is_removed_and_told(
    small_bundle: Path, small_checkpoint: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [leave(target, new="half")]
    shutil.copytree(target, left[0] / "whole")
    (target / "engines").mkdir()
    left.append(leave(target / "engines" / "tensorrt-10", new="half"))
    reuse(small_bundle, monkeypatch)
    lines: list[str] = []
    export(small_checkpoint, target, progress=Lines(lines.append))
    assert {f"removed {work}" for work in left} <= {line.split(", ")[0] for line in lines}
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_past_tolerance_nothing_is_written(
    small_bundle: Path, small_checkpoint: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse(small_bundle, monkeypatch)
    strict = replace(PRECISIONS["fp32"], tolerance=Tolerance(0.0, 0.0, 1.0, 0.0, 0.0))
    monkeypatch.setitem(PRECISIONS, "fp32", strict)
    message = r"embedding: relative L2 \S+ > 0; .*Nothing was written; [^;]*$"
    assert_unchanged_by(lambda: export(small_checkpoint, target), target, ExportError, message)


def test_graphs_of_other_weights_are_noticed(
    small_bundle: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = seeded_checkpoint(tmp_path / "other.pth", seed=1)
    reuse(small_bundle, monkeypatch)
    assert_unchanged_by(lambda: export(other, target), target, ExportError, r"embedding: .*point: mask IoU")


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("full_at", ["the weights", "the manifest", "the flush to the disk"])
def test_a_full_disk_leaves_what_was_there(
    small_bundle: Path, small_checkpoint: Path, target: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    def half_a_graph(
        module: nn.Module, graph: Graph, samples: Sequence[Tensor], folder: Path, weights: str = ""
    ) -> None:
        (folder / (weights or graph.file)).write_bytes(b"half")
        no_space()

    reuse(small_bundle, monkeypatch)
    owner, name, fails = {
        "the weights": (forms, "export_graph", half_a_graph),
        "the manifest": (Path, "write_text", no_space),
        "the flush to the disk": (os, "fsync", no_space),
    }[full_at]
    monkeypatch.setattr(owner, name, fails)
    refused_for_space(small_checkpoint, target)


def refused_for_space(checkpoint: Path, target: Path) -> None:
    message = f"cannot write .*{os.strerror(errno.ENOSPC)}.*free space"
    assert_unchanged_by(lambda: export(checkpoint, target), target, OutputError, message)


def test_onnx_files_are_written_where_a_full_disk_is_noticed(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the real exporter up to its last step, and with nothing there before."""
    monkeypatch.setattr(onnx_export.onnx_ir, "save", no_space)
    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
        export(small_checkpoint, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_unwritable_targets_are_found_out_before_the_work(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        pytest.fail("the export had begun")

    monkeypatch.setattr(pipeline, "checkpoint_reference", too_late)
    with pytest.raises(OutputError, match=r"the folder .*absent does not exist; create it first"):
        export(small_checkpoint, tmp_path / "absent" / "bundle")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Not by permissions: tests may run as root, whom they do not bind.
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", denied)
        with pytest.raises(OutputError, match=f"cannot write .*{os.strerror(errno.EACCES)}; check the path"):
            export(small_checkpoint, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_bundle_does_not_replace_something_else(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="a file of that name exists"):
        export(small_checkpoint, tmp_path / "file")
    with pytest.raises(OutputError, match="a bundle is a folder; name it bundle"):
        export(small_checkpoint, tmp_path / "bundle.zip")
    assert (tmp_path / "file").read_text() == "kept"


def test_what_comes_to_the_folder_while_the_work_goes_on_stays(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine")

    monkeypatch.setattr(pipeline, "_fill", slow)
    with pytest.raises(OutputError, match="mine is a folder that holds other things than a bundle"):
        export(small_checkpoint, tmp_path / "mine")
    assert everything_in(tmp_path).keys() == {"mine/notes.txt"}


def test_a_bundle_does_not_replace_the_folder_of_the_checkpoint(small_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine" / "sam.pth"
    checkpoint.parent.mkdir()
    shutil.copyfile(small_checkpoint, checkpoint)
    with pytest.raises(OutputError, match="mine is a folder that holds other things than a bundle"):
        export(checkpoint, checkpoint.parent)
    assert sha256_of(checkpoint) == sha256_of(small_checkpoint)
