"""Where compiled kernels are kept: what lies there is run, so nobody else may put it there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from samrt.backends.tensorrt.cache import JitCache
from samrt.device.gpus import Gpu

_GPU = Gpu(index=0, name="Some GPU", compute_capability="8.7", memory=2**33)

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owner there")


class _Cache:
    def __init__(self) -> None:
        self.filled: list[bytes] = []

    def serialize(self) -> bytes:
        return b"compiled"

    def deserialize(self, content: bytes) -> bool:
        self.filled.append(content)
        return True


def _opened(runtime: _Cache) -> JitCache:
    config = SimpleNamespace(create_runtime_cache=lambda: runtime, set_runtime_cache=lambda _: True)
    return JitCache(config, Path("plan"), _GPU, "ab" * 32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "samrt"


@pytest.mark.parametrize("mode", [None, 0o777])
def test_only_the_owner_enters_it(folder: Path, mode: int | None) -> None:
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    _opened(_Cache()).save()
    assert folder.stat().st_mode & 0o777 == 0o700
    runtime = _Cache()
    _opened(runtime)
    assert runtime.filled == [b"compiled"]


def test_another_users_is_neither_read_nor_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _opened(_Cache()).save()
    (file,) = folder.iterdir()
    file.write_bytes(b"planted")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    runtime = _Cache()
    _opened(runtime).save()
    assert runtime.filled == []
    assert file.read_bytes() == b"planted"
