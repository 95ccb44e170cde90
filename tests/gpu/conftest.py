"""Fixtures of the tests that need an NVIDIA GPU; all are skipped, with the reason, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_graphs import build, doubling

from samrt.backends.tensorrt.engine import TensorRtEngine
from samrt.device.gpus import find_gpus
from samrt.device.session import DeviceSession
from samrt.engines.flavours import FLAVOURS, Flavour, import_flavour
from samrt.engines.profiles import BuildLimits
from samrt.errors import BackendError
from samrt.kernels.library import Kernels, find_kernels_library, load_kernels

_FOLDER = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = None if find_gpus() else pytest.mark.skip(reason=_why_no_gpu())
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if absent is not None:
                item.add_marker(absent)


def _why_no_gpu() -> str:
    try:
        DeviceSession().close()
    except BackendError as error:
        return f"no NVIDIA GPU that CUDA and cuda-core can use: {error}"
    return "CUDA offers no NVIDIA GPU"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What TensorRT-RTX compiles here is kept neither in the user's cache nor taken from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flavour:
    """Each flavour of TensorRT that is installed and made for this GPU."""
    try:
        found = import_flavour(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    try:
        plan, graph = build(found, doubling(tmp_path_factory.mktemp("doubling")), BuildLimits())
        with DeviceSession() as session:
            TensorRtEngine(plan, graph, found, session).close()
    except BackendError as error:
        # Only a GPU that the flavour does not name excuses it; anything else is for the tests to fail on.
        capability = find_gpus()[0].compute_capability
        named = getattr(found.module, "ComputeCapability", None)
        if named is not None and f"SM{capability.replace('.', '')}" not in named.__members__:
            pytest.skip(f"{found.title} is not made for compute capability {capability}: {error}")
        raise
    return found


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    try:
        path = find_kernels_library()
    except BackendError as error:
        pytest.skip(str(error))
    return load_kernels(path)


@pytest.fixture
def session() -> Iterator[DeviceSession]:
    with DeviceSession() as opened:
        yield opened


@pytest.fixture(scope="session")
def exported(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The small checkpoint exported in a lowering: in float32, and in the precision asked for."""
    from samrt_export.pipeline import ExportOptions, export

    folder = tmp_path_factory.mktemp("exported")

    def make(precision: str, lowering: str) -> Path:
        target = folder / f"{precision}-{lowering}"
        if not target.exists():
            precisions = tuple(dict.fromkeys(("fp32", precision)))
            export(small_checkpoint, target, ExportOptions(lowering=lowering, precisions=precisions))
        return target

    return make


@pytest.fixture(scope="session")
def built(
    exported: Callable[[str, str], Path], flavour: Flavour, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """That bundle with engines of the flavour in it."""
    from samrt.engines.builder.bundle import BuildRequest, build_bundle

    folder = tmp_path_factory.mktemp(f"built-{flavour.name}")

    def make(precision: str, lowering: str) -> Path:
        target = folder / f"{precision}-{lowering}"
        if not target.exists():
            shutil.copytree(exported(precision, lowering), target)
            build_bundle(target, BuildRequest(backend=flavour.name, precision=precision))
        return target

    return make
