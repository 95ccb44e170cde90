"""Where an image may come from: a path, bytes, an open file or a pipe; and what is said where nothing can be read."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from written_files import saved

import samrt
from samrt.errors import InputError
from samrt.images import read_image

pytest_plugins = ("toy_fixtures",)

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
FILE = saved(PIL.Image.fromarray(RGB), "PNG")


class Stream:
    """Like a response of the network: it can be read once."""

    def __init__(self, content: Any = FILE) -> None:
        self.content = content

    def read(self, size: int = -1) -> Any:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(FILE)
    return tmp_path / "a.png"


def sources(path: Path) -> Iterator[Any]:
    yield from (
        path,
        str(path),
        FILE,
        bytearray(FILE),
        memoryview(FILE),
        memoryview(FILE + FILE)[: len(FILE)],
        Stream(),
    )
    yield from (io.BytesIO(FILE), path.open("rb"), path.open("rb", buffering=0))
    ended = io.BytesIO(FILE)
    ended.seek(0, 2)  # as after it was written
    yield ended
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115  the test closes it
    spooled.write(FILE)
    yield spooled
    with zipfile.ZipFile(path.with_name("a.zip"), "w") as archive:
        archive.writestr("a.png", FILE)
    yield zipfile.ZipFile(path.with_name("a.zip")).open("a.png")  # noqa: SIM115  as above


def test_every_source(path: Path) -> None:
    for source in sources(path):
        for _ in range(1 if isinstance(source, Stream) else 2):
            np.testing.assert_array_equal(read_image(source, "BGR"), RGB)
        if hasattr(source, "closed"):
            assert not source.closed
            source.close()


def test_model_and_predictor_take_them(toy_model: samrt.Model, path: Path) -> None:
    expected = toy_model.encode(RGB, region=(1, 1, 6, 4)).features
    for source in (FILE, io.BytesIO(FILE), path):
        features = toy_model.encode(source, region=(1, 1, 6, 4)).features
        assert all((features[name] == expected[name]).all() for name in expected)
    predictor = samrt.SamPredictor(toy_model)
    predictor.set_image(FILE)
    assert predictor.original_size == RGB.shape[:2]
    assert len(toy_model.encode_batch([FILE, io.BytesIO(FILE)])) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is empty: it has 0 bytes"):
        read_image(tmp_path / "pipe")  # nobody writes: it does not wait
    read, write = os.pipe()
    os.write(write, FILE)
    os.close(write)
    np.testing.assert_array_equal(read_image(f"/dev/fd/{read}"), RGB)
    os.close(read)


def refused(folder: Path) -> Iterator[tuple[Any, str]]:
    (folder / "empty.png").touch()
    (folder / "text").write_text("hello")
    yield folder / "absent.png", "there is no image file at .*absent.png; check the path"
    yield folder / "text" / "a.png", "there is no image file at"
    yield folder, "there is no image file at .*: it is a folder; name a file"
    yield "a\0b", "there is no image file at"
    yield "a\ud800b", "there is no image file at"
    yield "x" * 300, "cannot read xxx.*name too long"
    yield folder / "empty.png", "empty.png is empty: it has 0 bytes"
    yield b"", "the image given as bytes is empty"
    yield b"hello", "the image given as bytes is not an image in a format that samrt reads; convert it"
    yield Stream("text"), r"read\(\) of the image given as an open file returned str, not bytes"
    yield Stream(None), "returned NoneType, not bytes"
    yield Stream(TimeoutError(110, "timed out")), "cannot read the image given as an open file: timed out; check"
    yield io.TextIOWrapper(io.BytesIO(b"hello")), 'open as text; open it with mode "rb"'
    yield io.StringIO("hello"), "is open as text"
    closed = io.BytesIO(FILE)
    closed.close()
    yield closed, "cannot read the image given as an open file: I/O operation on closed file"
    if os.path.exists("/dev/null"):
        yield "/dev/zero", "it is a device or a socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
            yield folder / "socket", "it is a device or a socket"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for source, message in refused(tmp_path):
        with pytest.raises(InputError, match=message):
            read_image(source)


def test_file_without_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)  # root may read everything
    with pytest.raises(InputError, match=r"cannot read .*a.png: Permission denied; check the path, its permissions"):
        read_image(path)


def test_disk_that_fails_while_reading(path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 60:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(InputError, match="cannot read the image given as an open file: Input/output error"):
        read_image(Failing(saved(PIL.Image.effect_noise((200, 200), 90), "PNG")))


def test_stdin(path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from samrt.images import read_image as r; r(sys.stdin.buffer)"]
    assert subprocess.run(command, input=FILE, check=False, capture_output=True).returncode == 0
    garbage = subprocess.run(command, input=b"garbage", check=False, capture_output=True, text=False)
    assert b"<stdin> is not an image" in garbage.stderr
