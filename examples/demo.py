"""Installs samrt in an environment of its own, segments a photograph, and writes an overlay and the masks.

`make demo` runs this file with the system's Python. It needs only the standard library. An environment that is there
and up to date is used again, so that a second run takes seconds. All files are written to `demo/` and `.venv-demo/`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-demo"
PYTHON = VENV / "bin" / "python"
SAMRT = VENV / "bin" / "samrt"
DEMO = ROOT / "demo"

# Relative to ROOT, where the commands run: they are printed as a user would type them.
OVERLAY = "demo/overlay.png"
MASKS = "demo/masks.json"
PHOTOGRAPH = "examples/images/coffee.jpg"
# Left, top, right, bottom in pixels: the cup's rim, the coffee, the spoon, the saucer, the handle.
BOXES = (
    (172, 18, 410, 212),
    (204, 96, 370, 193),
    (326, 235, 407, 327),
    (77, 70, 480, 388),
    (196, 230, 260, 307),
)


class DemoError(Exception):
    """A step failed; the message says what to do."""


def main() -> int:
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (("install", install), ("segment", segment))
    rows = []
    for name, step in steps:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        try:
            reused = step()
        except DemoError as error:
            print(f"\nmake demo: {name}: {error}", file=sys.stderr)
            return 1
        rows.append(f"{name:<12}{time.perf_counter() - start:>8.1f}{'   (up to date)' if reused else ''}")
    print("\nstep         seconds", *rows, sep="\n")
    print(f"\nmasks    {ROOT / MASKS}\noverlay  {ROOT / OVERLAY}")
    return 0


def install() -> bool:
    """Make `.venv-demo` and install samrt into it. Returns whether it was up to date, so that nothing was done."""
    # The scripts of an environment contain its path and its Python: a moved checkout needs a new environment.
    stamp = VENV / "installed.json"
    home = [str(VENV), sys.version]
    wanted = {"home": home, "sources": sources_digest()}
    found = read_json(stamp)
    if found == wanted:
        return True
    stamp.unlink(missing_ok=True)
    if found.get("home") != home or not PYTHON.exists():
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "could not create an environment. On Debian and Ubuntu, install the package python3-venv",
        )
    # Otherwise setuptools installs modules of an earlier build that were deleted from the sources since.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    pip("install", ".")
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return False


def segment() -> bool:
    """Predict one mask per box on the photograph. Always done, so it returns False."""
    boxes = [argument for box in BOXES for argument in ("--box", ",".join(map(str, box)))]
    DEMO.mkdir(exist_ok=True)
    samrt("segment", PHOTOGRAPH, *boxes, "-o", OVERLAY, "--json", MASKS)
    return False


def samrt(*arguments: str) -> None:
    shown = " ".join(["samrt", *arguments])
    print(f"$ {shown}", flush=True)
    run([str(SAMRT), *arguments], f"`samrt {arguments[0]}` failed; its message is above")


def pip(*arguments: str) -> None:
    """Run the environment's pip. If it fails, the error names the package that could not be downloaded."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    print(f"$ pip {' '.join(arguments)}", flush=True)
    said = []
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            sys.stderr.write(line)
            said.append(line)
    if process.returncode:
        missing = re.findall(r"(?:No matching distribution found for|satisfies the requirement) (\S+)", "".join(said))
        what = f"could not download {missing[-1]}" if missing else "failed; its message is above"
        raise DemoError(
            f"pip {what}. If this machine cannot reach the package index, set HTTPS_PROXY to a proxy, PIP_INDEX_URL to "
            "another index or PIP_FIND_LINKS to a folder of wheels. Then run `make demo` again: it continues here"
        )


def run(command: Sequence[str], failure: str) -> None:
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        raise DemoError(f"{failure} (exit status {status})")


def sources_digest() -> str:
    """SHA-256 of all files that the environment is made from."""
    patterns = ("pyproject.toml", "setup.py", "samrt/**/*.py", "export/**/*.py", "samrt/default.samrt/*")
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or damaged, so that its step is done again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nmake demo: stopped; run it again to continue", file=sys.stderr)
        sys.exit(128 + 2)
