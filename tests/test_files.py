"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from samrt import files
from samrt.errors import OutputError
from samrt.exchange import exchange
from samrt.files import check_mark, check_target, read_regular, replacing_file, replacing_folder, sha256_of


def _write_to_a_full_disk(path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_sha256_is_that_of_hashlib_for_several_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_target_that_cannot_be_written_is_found_out_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; create it first"):
        check_target(tmp_path / "absent" / "out.png")
    check_target(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_file_is_replaced_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_text("old")
    with replacing_file(target) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".bin"
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


MARK = b"written by samrt"


@pytest.mark.parametrize("kept", [b"a ground truth", b"x" * 600 + MARK])
def test_a_file_without_the_mark_stays(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "a").write_bytes(kept)
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with pytest.raises(OutputError, match=r"exists, and samrt did not write it; .* with overwrite=True"):
            check_target(tmp_path / name, MARK)
        with pytest.raises(OutputError, match="samrt did not write it"), replacing_file(tmp_path / name, MARK):
            pytest.fail("the work began")
    assert (tmp_path / "a").read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


def test_files_with_the_mark_and_empty_ones_are_replaced(tmp_path: Path) -> None:
    for before in (None, b"", b"{ " + MARK):
        if before is not None:
            (tmp_path / "a").write_bytes(before)
        check_target(tmp_path / "a", MARK)
        with replacing_file(tmp_path / "a", MARK) as temporary:
            temporary.write_bytes(b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
        (tmp_path / "a").unlink()


def test_a_file_that_comes_while_the_work_goes_on_stays(tmp_path: Path) -> None:
    def write() -> None:
        with replacing_file(tmp_path / "a", MARK) as temporary:
            temporary.write_bytes(b"new")
            (tmp_path / "a").write_bytes(b"a ground truth")

    with pytest.raises(OutputError, match="did not write it"):
        write()
    assert (tmp_path / "a").read_bytes() == b"a ground truth"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "out") as temporary:
        temporary.write_text("x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"out: No space left.*free space"), replacing_file(target) as temporary:
        _write_to_a_full_disk(temporary)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_pass_and_clean_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing_file(tmp_path / "out"):
        raise KeyError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_missing_folder_is_named(tmp_path: Path, replacing: object) -> None:
    with pytest.raises(OutputError, match="absent does not exist; create it"), replacing(tmp_path / "absent" / "x"):  # type: ignore[operator]
        pass


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_path_without_a_name_is_refused(replacing: object) -> None:
    with pytest.raises(OutputError, match="name what to write"), replacing("."):  # type: ignore[operator]
        pass


def test_missing_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, because root may write everywhere.
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", denied)
    with (
        pytest.raises(OutputError, match=r"cannot write .*out: Permission denied; check"),
        replacing_file(tmp_path / "out"),
    ):
        pass


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "stale").write_text("old")
    with replacing_folder(target) as temporary:
        (temporary / "fresh").write_text("new")
        assert (target / "stale").exists()
    assert [path.name for path in target.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [target]


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "kept").write_text("old")
    with pytest.raises(OutputError, match="No space left"), replacing_folder(target) as temporary:
        _write_to_a_full_disk(temporary / "half")
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]


def test_interrupt_between_the_two_renames_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "kept").write_text("old")
    rename, calls = Path.rename, []
    monkeypatch.setattr(files, "exchange", lambda one, other: False)

    def interrupted(self: Path, other: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, other)

    with pytest.raises(KeyboardInterrupt), replacing_folder(target):
        monkeypatch.setattr(Path, "rename", interrupted)
    assert (target / "kept").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_file_that_comes_into_the_old_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool
) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "known").write_text("old")
    if not exchanging:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)

    def check(old: Path) -> None:
        assert old != target
        if os.listdir(old) != ["known"]:
            raise OutputError("mine")

    with pytest.raises(OutputError, match="mine"), replacing_folder(target, check):
        (target / "late").write_text("mine")
    assert sorted(os.listdir(target)) == ["known", "late"]
    assert list(tmp_path.iterdir()) == [target]
    (target / "late").unlink()
    with replacing_folder(target, check) as fresh:
        (fresh / "new").touch()
    assert os.listdir(target) == ["new"]


def test_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="a file of that name exists"), replacing_folder(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_text() == "mine"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "there" / "folder").mkdir()
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    with replacing_file(tmp_path / "file") as temporary:
        temporary.write_text("new")
    with replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "fresh").touch()
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"
    assert (tmp_path / "there" / "folder" / "fresh").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="links have no owner there")
@pytest.mark.parametrize("chain", [False, True])
def test_links_of_other_users_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: bool) -> None:
    (tmp_path / "kept").write_text("old")
    planted = tmp_path / "planted"
    planted.symlink_to("kept")
    target = planted
    if chain:
        target = tmp_path / "own"
        target.symlink_to("planted")
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] = os.geteuid() + 1 if path == planted else os.geteuid()
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    for replacing in (replacing_file, replacing_folder):
        with pytest.raises(OutputError, match="planted is a link that another user made"), replacing(target):
            pass
    assert (tmp_path / "kept").read_text() == "old"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system there")
def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "pipe", tmp_path / "folder", Path(os.devnull)):
        with pytest.raises(OutputError, match="not a regular file"):
            check_target(target)
        with pytest.raises(OutputError, match="not a regular file"), replacing_file(target):
            pass


def test_two_who_replace_one_folder_at_once_both_succeed(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def replace(name: str) -> None:
        for _ in range(50):
            with replacing_folder(target) as folder:
                (folder / "who").write_text(name)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(replace, name) for name in "ab"]:
            done.result()
    assert (target / "who").read_text() in "ab"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    if not exchange(target, target):
        pytest.skip("this file system cannot exchange two names")
    done = threading.Event()
    missing = []

    def watch() -> None:
        while not done.is_set():
            missing.extend([] if target.is_dir() else [1])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with replacing_folder(target):
            pass
    done.set()
    watcher.join()
    assert not missing


@pytest.mark.parametrize("given", [None, 5, b"name", ["name"], "a\0b", "\ud800"])
def test_what_is_no_path_is_an_error_of_samrt(given: Any) -> None:
    for act in (check_target, lambda path: replacing_file(path).__enter__()):
        with pytest.raises(OutputError, match=r"must be a path|no file can have the name"):
            act(given)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """They would make one wait, or have no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="a pipe or a device"):
            read_regular(path, 10)
    with pytest.raises(OutputError, match="a pipe or a device"):
        check_mark(tmp_path / "pipe", b"mark")
    (tmp_path / "file").write_bytes(b"12345678901")
    assert read_regular(tmp_path / "file", 11) == b"12345678901"
    with pytest.raises(OSError, match="11 bytes, and samrt reads 10"):
        read_regular(tmp_path / "file", 10)
