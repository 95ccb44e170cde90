"""Fixtures that several test files share."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absent import absent

_REPOSITORY = Path(__file__).resolve().parent.parent
# After everything else: its modules have plain names.
sys.path.append(str(_REPOSITORY / "benchmarks" / "gpu"))
# Tests import ONNX Runtime by themselves, before samrt turns its telemetry off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# A shell lets what it runs in the background ignore Ctrl-C, which tests send to themselves and to their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
_FETCHED = _REPOSITORY / ".cache" / "lite_medsam.pth"  # where `make test` puts it


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded SAM with a small ViT (`seeded.SMALL_VIT`), as a .pth file. Read it, do not change it."""
    from seeded import seeded_checkpoint

    return seeded_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small.pth")


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_checkpoint` exported with the default options (some 15 s). Read it, do not change it."""
    from samrt_export.pipeline import export

    target = tmp_path_factory.mktemp("exported") / "small.samrt"
    export(small_checkpoint, target)
    return target


@pytest.fixture(scope="session")
def plugin_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded SAM whose heads of 64 the plugin's kernels take (`seeded.PLUGIN_VIT`). Read it, do not change it."""
    from seeded import PLUGIN_VIT, seeded_checkpoint

    return seeded_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small.pth", PLUGIN_VIT)


@pytest.fixture(scope="session")
def exported_plugin(plugin_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as `--precision fp32,fp16 --lowering auto,plugin` exports it (some 20 s). Read it, do not change it."""
    from samrt_export.pipeline import ExportOptions, export

    target = tmp_path_factory.mktemp("exported") / "plugin.samrt"
    export(plugin_checkpoint, target, ExportOptions(lowering=("auto", "plugin"), precisions=("fp32", "fp16")))
    return target


@pytest.fixture(scope="session")
def default_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the packaged bundle was exported from."""
    from training.weights import join

    path = tmp_path_factory.mktemp("default") / "model.pth"
    join(_REPOSITORY / "training" / "default", path)
    return path


@pytest.fixture(scope="session")
def default_form(default_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A function from precision and lowering to a bundle of `default_checkpoint` in that form, exported once."""
    from samrt_export.pipeline import ExportOptions, export

    @functools.cache
    def bundle(precision: str, lowering: str) -> Path:
        target = tmp_path_factory.mktemp("default") / "bundle"
        options = ExportOptions(precisions=(precision,), lowering=lowering, image_size=512)
        export(default_checkpoint, target, options)
        return target

    return bundle


@pytest.fixture(scope="session")
def lite_medsam() -> Path:
    """LiteMedSAM's released checkpoint; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("SAMRT_LITE_MEDSAM", _FETCHED))
    if not path.is_file():
        absent(f"no LiteMedSAM checkpoint at {path}; `make test` fetches it, or set SAMRT_LITE_MEDSAM to it")
    return path


@pytest.fixture(scope="session")
def lite_medsam_bundle(lite_medsam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It in fp32 and fp16 (some 40 s). Build engines into it, but do not change it otherwise."""
    from samrt_export.pipeline import ExportOptions, export

    target = tmp_path_factory.mktemp("lite_medsam") / "lite_medsam.samrt"
    export(lite_medsam, target, ExportOptions(precisions=("fp32", "fp16")))
    return target


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of evaluation data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("SAMRT_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        absent(f"no evaluation data in {folder}; set SAMRT_DATA to the folder that holds it")
    return folder
