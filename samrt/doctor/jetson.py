"""Whether this is a Jetson, and in which power mode: read from the board's own files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from samrt.doctor.findings import Finding

_JETSON_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_MODEL = Path("/proc/device-tree/model")
# What nvpmodel keeps for itself: the mode's number, and what each number means.
_POWER_STATUS, _POWER_MODES = Path("/var/lib/nvpmodel/status"), Path("/etc/nvpmodel.conf")
_POWER_TIMEOUT = 3.0  # seconds


def examine_jetson() -> list[Finding]:
    """The board and its power mode on a Jetson, nothing elsewhere."""
    model = _first_line(_DEVICE_MODEL)
    release = _first_line(_JETSON_RELEASE)
    if release is None and (model is None or "NVIDIA" not in model):
        return []
    return [Finding("Jetson", "ok", ", ".join(text for text in (model, release) if text)), _power_mode()]


def _power_mode() -> Finding:
    """The power mode, which caps the clocks: by nvpmodel's own files, else by asking it. Never as root."""
    name = "power mode"
    modes = dict(re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text_of(_POWER_MODES), re.MULTILINE))
    others = f", of {', '.join(f'{mode} ({number})' for number, mode in modes.items())}" if modes else ""
    if match := re.search(r"pmode:(\d+)", _text_of(_POWER_STATUS)):
        number = str(int(match[1]))
        return Finding(name, "ok", f"{modes.get(number, 'mode')} ({number}){others}")
    if match := re.search(r"NV Power Mode:\s*(\S+)", _ask_nvpmodel()):
        return Finding(name, "ok", f"{match[1]}{others}")
    return Finding(name, "missing", "cannot be read", "sudo nvpmodel -q")


def _ask_nvpmodel() -> str:
    try:
        answer = subprocess.run(
            ["nvpmodel", "-q"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_POWER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    # The device tree ends its strings with a zero byte.
    lines = _text_of(path).replace("\0", "").splitlines()
    return lines[0].strip(" #") if lines else None
