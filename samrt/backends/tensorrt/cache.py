"""What TensorRT-RTX compiled for an engine on this GPU, kept from one process to the next."""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path
from typing import Any

from samrt.device.gpus import Gpu
from samrt.files import replacing_file, sha256_of
from samrt.processes import keep_while_alive

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where compiled kernels are kept: `$XDG_CACHE_HOME/samrt`, or `~/.cache/samrt`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "samrt"


def private_folder(folder: Path) -> None:
    """Make the folder, which only its owner enters: what lies in it is run on the GPU.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    folder.chmod(0o700)


def check_private(folder: Path) -> None:
    """Raises OSError where the folder is there and another user's."""
    if hasattr(os, "geteuid") and folder.exists() and folder.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user")


class JitCache:
    """The runtime cache of one plan on one GPU. What goes wrong with its file is no error: it only costs time."""

    def __init__(self, runtime_config: Any, plan: Path, gpu: Gpu, sha256: str | None = None) -> None:
        """Make the cache, fill it from its file and give it to the config of the context to be."""
        device = re.sub(r"[^a-z0-9]+", "-", f"{gpu.name} {gpu.compute_capability}".lower()).strip("-")
        self._cache = runtime_config.create_runtime_cache()
        keep_while_alive(self, self._cache)
        self._saved = b""
        self._saved_once = False
        self._path: Path | None = None
        try:
            check_private(cache_folder())
            self._path = cache_folder() / f"{sha256 or sha256_of(plan)}-{device}.jit"
            self._saved = self._path.read_bytes() if self._path.exists() else b""
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
            _log.info("the cache of compiled kernels cannot be read: %s", error)
        if self._saved and not self._fill():
            # Another version, another driver, or damage; it is written anew.
            _log.info("the cache of compiled kernels %s does not fit and is ignored", self._path)
            self._saved = b""
        if not runtime_config.set_runtime_cache(self._cache):
            _log.info("TensorRT-RTX refuses the cache of compiled kernels; it compiles them in every process")
            self._path = None

    def save_once(self) -> None:
        """`save`, the first time: a process that is killed later has then lost little."""
        if not self._saved_once:
            self._saved_once = True
            self.save()

    def save(self) -> None:
        """Write the cache where it has changed."""
        if self._path is None:
            return
        try:
            content = bytes(self._cache.serialize())
            if content == self._saved:
                return
            private_folder(self._path.parent)
            with replacing_file(self._path) as temporary:
                temporary.write_bytes(content)
            self._saved = content
        except Exception as error:  # of the file, or of TensorRT's bindings in their own ways
            _log.info("the cache of compiled kernels cannot be written: %s", error)
            self._path = None

    def _fill(self) -> bool:
        try:
            return bool(self._cache.deserialize(self._saved))
        except Exception:  # as for `save`
            return False
