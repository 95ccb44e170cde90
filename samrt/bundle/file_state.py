"""Whether a file is still the one that was hashed: hashing and loading open it by its path, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from samrt.errors import BundleError
from samrt.files import open_regular, sha256_of_open


@dataclass(frozen=True)
class FileState:
    """What changes when another file takes a file's place or when it is written to, as `os.stat` tells it."""

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path | int) -> FileState:
        """State of a file by path or descriptor. Raises OSError where there is none."""
        found = os.stat(path)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def hash_file(path: Path) -> tuple[str, FileState]:
    """Hexadecimal SHA-256 of a file's content, and the state of the file before it was read. Raises OSError."""
    with open_regular(path) as file:
        state = FileState.of(file.fileno())
        return sha256_of_open(file), state


class BundleReplacedError(BundleError):
    """A bundle that was replaced or changed while it was read; reading it again may succeed."""


class Patience:
    """How long a bundle is read again that other processes keep replacing: some times at least, and some seconds."""

    def __init__(self, reads: int = 10, seconds: float = 10) -> None:
        self._reads = reads
        self._until = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether it ends with the read that has just failed."""
        self._reads -= 1
        return self._reads <= 0 and time.monotonic() >= self._until


def check_unchanged(states: Mapping[Path, FileState]) -> None:
    """Find out after files were loaded by their path whether they are those that were hashed.

    Raises:
        BundleReplacedError: one was replaced, changed or removed since.
    """
    for path, state in states.items():
        try:
            same = FileState.of(path) == state
        except OSError:
            same = False
        if not same:
            raise BundleReplacedError(f"{path} was replaced or changed while it was loaded; load the bundle again")
