"""What killed processes leave is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from leftovers import NO_LOCKS, claim, leave

from samrt import files, work_folder
from samrt.errors import OutputError
from samrt.files import check_target, replacing_file, replacing_folder
from samrt.lock import LOCK_NAME
from samrt.work_folder import remove_leftovers

pytest.importorskip("fcntl")

_WRITE = """
import sys
from samrt import files
with getattr(files, sys.argv[1])(sys.argv[2]) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def write_file(target: Path) -> None:
    with replacing_file(target) as temporary:
        temporary.write_text("new")


def write_folder(target: Path, check: Callable[[Path], None] = lambda _: None) -> list[str]:
    """What is said meanwhile."""
    lines: list[str] = []
    with replacing_folder(target, check, lines.append) as temporary:
        (temporary / "who").write_text("new")
    return lines


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("replacing", "next_run"),
    [("replacing_file", write_file), ("replacing_file", check_target), ("replacing_folder", write_folder)],
)
def test_what_a_killed_process_left_is_removed_but_not_before_it_is_dead(
    tmp_path: Path, replacing: str, next_run: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "out.png"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITE, replacing, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        (work,) = tmp_path.iterdir()
        next_run(target)
        assert work.is_dir()
        assert not caplog.records
        other.kill()
    assert work.is_dir()
    lines = next_run(target) or [record.getMessage() for record in caplog.records]
    assert lines == [f"removed {work}, which process {other.pid} that was killed left behind"]
    assert names(tmp_path) == ([] if next_run is check_target else ["out.png"])


def test_what_was_killed_before_it_said_who_it_is_goes_too(tmp_path: Path) -> None:
    """In silence: a process that lives has such a folder for a moment, at the beginning and the end of its work."""
    for content, mode in ((None, 0o700), (None, 0o2700), ("", 0o700)):
        work = leave(tmp_path / "out")
        (work / LOCK_NAME).unlink() if content is None else (work / LOCK_NAME).write_text(content)
        work.chmod(mode)
    remove_leftovers(tmp_path, say=pytest.fail)
    assert names(tmp_path) == []


def test_what_cannot_be_removed_is_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = leave(tmp_path / "out", new="half")
    monkeypatch.setattr(work_folder, "_delete", lambda path: None)
    lines: list[str] = []
    remove_leftovers(tmp_path, say=lines.append)
    reason = f"which process {os.getpid()} that was killed left behind: Directory not empty; delete it"
    assert lines == [f"cannot remove {work}, {reason}"]


def with_a_pipe(work: Path) -> None:
    (work / LOCK_NAME).unlink()
    os.mkfifo(work / LOCK_NAME)
    (work / "new" / "who").unlink()
    (work / "new").rmdir()


def by_a_link(work: Path) -> None:
    work.rename(work.parent / "elsewhere")
    work.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda work: (work / "notes").write_text("mine"),
        lambda work: (work / "newspaper").write_text("mine"),
        lambda work: (work / LOCK_NAME).unlink(),
        lambda work: (work / LOCK_NAME).write_text("mine"),
        lambda work: (work / LOCK_NAME).write_text("[1]"),
        lambda work: (work / LOCK_NAME).write_text(""),
        lambda work: (work / LOCK_NAME).unlink() or (work / LOCK_NAME).symlink_to("new"),
        lambda work: claim(work, format="other"),
        lambda work: claim(work, target="../out"),
        lambda work: claim(work, target="o\0ut"),
        lambda work: claim(work, target="\ud800"),
        with_a_pipe,
        lambda work: claim(work, machine=["another"]),
        lambda work: work.rename(work.with_name(".mine")),
        lambda work: work.rename(work.with_suffix(".mine")),
        by_a_link,
    ],
)
def test_what_is_not_beyond_doubt_a_leftover_stays(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(leave(tmp_path / "out", new="mine"))
    before = sorted(tmp_path.rglob("*"))
    for check in (None, lambda _: None):
        remove_leftovers(tmp_path, check, say=pytest.fail)
    assert sorted(tmp_path.rglob("*")) == before


def test_nor_does_that_of_another_user_or_an_empty_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".out.0a1b2c3d.samrt-work").mkdir(mode=0o755)
    remove_leftovers(tmp_path, say=pytest.fail)
    leave(tmp_path / "out", new="half")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    remove_leftovers(tmp_path, say=pytest.fail)


# Complete folders


def refuse_mine(folder: Path) -> None:
    if (folder / "who").exists() and (folder / "who").read_text() == "mine":
        raise OutputError("it holds a file of yours; move it elsewhere")


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("moved", [{"old": "mine", "whole": "new"}, {"old": "old"}, {"whole": "old"}])
def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path, moved: dict[str, str], empty: bool) -> None:
    work = leave(tmp_path / "out", **moved)
    if empty:
        (tmp_path / "out").mkdir()
    lines: list[str] = []
    remove_leftovers(tmp_path, refuse_mine, "out", lines.append)
    assert (tmp_path / "out" / "who").read_text() in ("old", "mine")
    assert [line.split(", which")[0] for line in lines] == [f"brought back {tmp_path / 'out'}", f"removed {work}"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["old", "whole"])
def test_one_that_was_replaced_is_removed(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "out")
    work = leave(tmp_path / "out", **{name: "old"})
    remove_leftovers(tmp_path, refuse_mine, "other", pytest.fail)
    remove_leftovers(tmp_path, None, None, pytest.fail)
    (line,) = write_folder(tmp_path / "out", refuse_mine)
    assert line.startswith(f"removed {work}, ")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("at_target", [False, True])
def test_but_not_where_one_of_the_two_holds_what_samrt_did_not_write(tmp_path: Path, at_target: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "who").write_text("mine" if at_target else "new")
    work = leave(tmp_path / "out", whole="old" if at_target else "mine")
    lines: list[str] = []
    remove_leftovers(tmp_path, refuse_mine, "out", lines.append)
    assert lines == [f"kept {work / 'whole'}, an earlier out, because it holds a file of yours; move it elsewhere"]
    assert names(tmp_path) == [work.name, "out"]


@pytest.mark.parametrize("exchanging", [True, False])
def test_the_old_folder_survives_an_end_of_the_work_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool
) -> None:
    """As a kill between any two steps: what then is in the work folder is enough to have the old or the new one."""
    if not exchanging:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    steps = 0
    for last in range(1, 9):
        target = tmp_path / str(last) / "out"
        target.parent.mkdir()
        write_folder(target)
        (target / "who").write_text("old")
        done = _steps_until(last, target)
        if not done:
            write_folder(target)
        assert (target / "who").read_text() == "new"
        assert names(target.parent) == ["out"]
        steps += not done
    assert steps >= 3


def _steps_until(last: int, target: Path) -> bool:
    """Replace a folder in a child that ends before its rename or exchange number `last`; whether it was done before."""
    number = os.fork()
    if number == 0:
        left = last

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in ("os.rename", "os.rmdir", "os.remove"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            write_folder(target)
        finally:
            os._exit(0)
    done = os.waitpid(number, 0)[1] == 0
    assert done or (target.exists() or any((each / "old").exists() for each in target.parent.iterdir()))
    return done


# Where there are no locks


@pytest.mark.parametrize("module", [None, NO_LOCKS])
def test_without_locks_files_are_written_and_leftovers_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fcntl", module)
        write_file(tmp_path / "out")
        write_folder(tmp_path / "folder")
        assert names(tmp_path) == ["folder", "out"]
        left, _ = work_folder._begin(tmp_path / "out")
        (left / "new").write_text("half")
        remove_leftovers(tmp_path, say=pytest.fail)
    remove_leftovers(tmp_path, say=pytest.fail)
    assert left.is_dir()


def test_a_folder_with_many_files_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_folder, "_MANY", 1)
    monkeypatch.setattr(work_folder, "_looked_through", set())
    (tmp_path / "other").touch()
    leave(tmp_path / "out")
    write_file(tmp_path / "out")
    leave(tmp_path / "out")
    monkeypatch.setattr(os, "listdir", pytest.fail)
    remove_leftovers(tmp_path)


def test_a_name_as_long_as_linux_allows_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "\N{GRINNING FACE}" * 63):
        write_file(tmp_path / name)
        leave(tmp_path / name, new="half")
        write_file(tmp_path / name)
    assert len(names(tmp_path)) == 2
