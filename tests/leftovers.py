"""What a process leaves that is killed while it writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

from samrt import work_folder
from samrt.lock import LOCK_NAME


def _no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


# In the place of `fcntl`, as on a file system without locks.
NO_LOCKS = SimpleNamespace(flock=_no_locks, LOCK_EX=0, LOCK_NB=0)


def leave(target: Path, **folders: str) -> Path:
    """A work folder for `target` that nobody holds, with folders of these names that hold a file `who` with a text."""
    work, lock = work_folder._begin(target)
    assert lock is not None
    os.close(lock)
    for name, text in folders.items():
        (work / name).mkdir()
        (work / name / "who").write_text(text)
    return work


def claim(work: Path, **changes: object) -> None:
    """Change what the lock of a work folder says."""
    import json

    path = work / LOCK_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
