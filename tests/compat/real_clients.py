"""Run the own code of programs written for Meta's `segment_anything` on samrt, and compare their masks with samrt's.

    python tests/compat/real_clients.py FOLDER [CLIENT ...]

FOLDER holds a folder for each client: a package as `pip install --no-deps --target FOLDER/NAME NAME==VERSION` unpacks
it, or a repository at its commit. Without FOLDER, the list is printed. Each client runs in a process of its own, with
two bundles: a small one at Meta's 1024 pixels, and the model that comes with samrt (512 pixels). What a client imports
beside `segment_anything` and is not installed is stood in by objects that do nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))

from oracle import photograph  # noqa: E402
from toy_bundle import rewrite_manifest, write_toy_bundle  # noqa: E402

import samrt  # noqa: E402
from samrt.compat import segment_anything  # noqa: E402
from samrt.files import sha256_of  # noqa: E402

IMAGE = photograph(300, 400)
SIZE = IMAGE.shape[:2]
POINTS, LABELS = np.array([[200, 100], [30, 280]]), np.array([1, 0])
# Packages that several clients import, in a folder of this name.
SHARED = ("site",)

BOXES = np.array([[130, 70, 270, 150], [10, 150, 180, 290]])


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module whose package is named: its attributes are mocks."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.used: set[str] = set()

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self.names:
            return None
        self.used.add(name.partition(".")[0])
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = _mock  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def _mock(name: str) -> MagicMock:
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()


@dataclass(frozen=True)
class Given:
    """What a client gets: the bundle, its folder, a folder to write to, and the expected masks by samrt's own API."""

    bundle: Path
    code: Path
    work: Path
    embedding: samrt.Embedding
    model: samrt.Model

    def expected(self, **prompt: Any) -> Any:
        return self.model.predict(self.embedding, **prompt)

    def checkpoint(self, path: Path) -> Path:
        """A checkpoint at `path`, beside the bundle that was exported from it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        beside = path.with_suffix(".samrt")
        shutil.copytree(self.bundle, beside)
        source = samrt.open_bundle(beside).manifest.source
        rewrite_manifest(beside, source=replace(source, name=path.name, sha256=sha256_of(path)))
        return path

    def photo(self) -> Path:
        cv2.imwrite(str(self.work / "photo.png"), IMAGE[..., ::-1])
        return self.work / "photo.png"


def same(found: Any, expected: Any) -> None:
    found = np.asarray(found)
    assert 0 < np.mean(expected) < 1, "the masks are empty or full"
    np.testing.assert_array_equal(found.astype(bool).reshape(expected.shape), expected)


def run(folder: Path, name: str, bundle: Path, work: Path) -> None:
    """Run one client in this process."""
    from clients import CLIENTS

    client = CLIENTS[name]
    os.environ["HOME"] = str(work)
    os.chdir(work)
    code = folder / name
    sys.path[1:1] = [str(code / client.path), *(str(folder / each) for each in SHARED)]
    stand_ins = StandIns(*client.stood_in)
    sys.meta_path.append(stand_ins)
    segment_anything.install(bundle)
    model = samrt.load(bundle)
    result = client.run(Given(bundle, code, work, model.encode(IMAGE), model)) or "equal"
    print(f"{result} [stood in: {', '.join(sorted(stand_ins.used)) or 'nothing'}]")


def main(arguments: list[str]) -> int:
    """Run the clients that are named, or all; the number of those that failed."""
    from clients import CLIENTS

    if not arguments:
        for name, client in CLIENTS.items():
            print(f"{name} {client.version}")
        return 0
    folder, failed = Path(arguments[0]).resolve(), 0
    with tempfile.TemporaryDirectory() as place:
        bundles = {"1024 pixels": write_toy_bundle(Path(place) / "toy", 1024, 16), "default": samrt.default_bundle()}
        for name in arguments[1:] or CLIENTS:
            for title, bundle in bundles.items():
                with tempfile.TemporaryDirectory() as work:
                    command = [sys.executable, __file__, "--run", folder, name, bundle, work]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
                failed += done.returncode != 0
                print(f"{name} {CLIENTS[name].version}, {title}: {lines[-1] if lines else done.returncode}", flush=True)
                if done.returncode and os.environ.get("VERBOSE"):
                    print(done.stderr)
    return failed


if __name__ == "__main__":
    sys.modules["real_clients"] = sys.modules["__main__"]
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.exit(main(sys.argv[1:]))
