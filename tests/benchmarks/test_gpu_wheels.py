"""Unpacking the wheels that are brought along to a machine without a network."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest
import wheels

_THIS = f"cp{sys.version_info.major}{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0-py2.py3-none-any.whl", True),
        (f"a-1.0-{_THIS}-{_THIS}-manylinux_2_28_{os.uname().machine}.whl", True),
        (f"a-1.0-{_THIS}-none-manylinux_2_28_{os.uname().machine}.whl", True),
        (f"a-1.0-cp37-abi3-manylinux2014_{os.uname().machine}.whl", True),
        (f"a-1.0-cp27-cp27m-manylinux_2_28_{os.uname().machine}.whl", False),
        (f"a-1.0-{_THIS}-{_THIS}-manylinux_2_28_riscv64.whl", False),
        ("a.whl", False),
    ],
)
def test_takes_wheels_for_this_python_and_machine_only(name: str, fits: bool) -> None:
    assert (wheels.unfit(name) == "") is fits


def test_unpacks_wheels_whole_and_in_parts(tmp_path: Path) -> None:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    for name in ("whole", "split"):
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.py", f"NAME = {name!r}\n")
    split = folder / "split-1.0-py3-none-any.whl"
    content = split.read_bytes()
    split.unlink()
    for index in range(11):  # the order of parts is by number, ten of them and more
        (folder / f"{split.name}.part{index:02}").write_bytes(
            content[index * 20 : (index + 1) * 20 if index < 10 else None]
        )
    (folder / "other-1.0-cp27-cp27m-any.whl").write_bytes(b"never opened")
    wheels.main(folder, site)

    assert (site / "whole.py").read_text() == "NAME = 'whole'\n"
    assert (site / "split.py").read_text() == "NAME = 'split'\n"
    assert not (site / "other.py").exists()


@pytest.mark.parametrize("lost", ["part00", "part01", "part02", "in the middle", "no zip"])
def test_a_wheel_that_is_damaged_or_lacks_a_part_is_left_out_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    wheel = folder / "broken-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("broken/__init__.py", "")
        archive.writestr("broken/data", os.urandom(3000))
    content = wheel.read_bytes()
    if lost.startswith("part"):
        wheel.unlink()
        for index in range(3):
            part = folder / f"{wheel.name}.part{index:02}"
            part.write_bytes(content[index * 1000 : (index + 1) * 1000 if index < 2 else None])
        (folder / f"{wheel.name}.{lost}").unlink()
    else:
        wheel.write_bytes(content[:1500] + bytes(10) + content[1510:] if lost == "in the middle" else b"no zip")
    with zipfile.ZipFile(folder / "good-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("good.py", "")
    wheels.main(folder, site)

    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "broken" in line and "is left out: it is damaged or lacks a part" in line]
    assert len(told) == 2
    assert (site / "good.py").exists()
    assert not (site / "broken").exists()
