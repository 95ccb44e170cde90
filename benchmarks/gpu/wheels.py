"""Unpack a folder of wheels, whole or in parts, into a folder for PYTHONPATH. Needs neither a network nor pip.

A wheel for another Python or machine, or a damaged one, is skipped with one line, and the benchmark runs without it.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import zipfile
from pathlib import Path

# Wheel tags: interpreter, ABI, platform (PEP 425).
_INTERPRETERS = ("py3", "py2.py3", f"cp{sys.version_info.major}{sys.version_info.minor}")


def main(folder: Path, site: Path) -> None:
    for wheel in _joined(folder, site):
        reason = unfit(wheel.name) or _unpack(wheel, site)
        outcome = f"{wheel.name} is left out: {reason}" if reason else f"unpacked {wheel.name}"
        print(f"wheels: {outcome}", file=sys.stderr)


def unfit(name: str) -> str:
    """Why this Python cannot use a wheel of this name; empty if it can."""
    parts = name.removesuffix(".whl").split("-")
    if len(parts) < 5:
        return "its name is not a wheel's"
    interpreter, abi, system = parts[-3:]
    if interpreter not in _INTERPRETERS and not (abi == "abi3" and interpreter.startswith("cp3")):
        return f"it is for {interpreter}, this is Python {platform.python_version()}"
    if system != "any" and not system.endswith(platform.machine()):
        return f"it is for {system}, this machine is {platform.machine()}"
    return ""


def _unpack(wheel: Path, site: Path) -> str:
    """Put all of a wheel into `site`, or nothing and say why not."""
    with tempfile.TemporaryDirectory(dir=site) as folder:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        except Exception as error:  # a gap in it raises anything from BadZipFile to a negative seek
            return f"it is damaged or lacks a part ({type(error).__name__}: {error})"
        for file in [path for path in Path(folder).rglob("*") if path.is_file()]:
            target = site / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    return ""


def _joined(folder: Path, scratch: Path) -> list[Path]:
    """The wheels of `folder`; those in parts are put together in `scratch`."""
    wheels = sorted(folder.glob("*.whl"))
    # By any part, as the first may be the one that is missing.
    for name in sorted({part.stem for part in folder.glob("*.whl.part*")}):
        whole = scratch / name
        with whole.open("wb") as file:
            for part in sorted(folder.glob(f"{whole.name}.part*")):
                file.write(part.read_bytes())
        wheels.append(whole)
    return wheels


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
