"""One line of `samrt doctor`'s report, and looking a package up without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: `ok`; `missing`, for what is optional and absent; `broken`, for what the runtime needs and cannot use,
            and for what is present but fails.
        detail: a version, or what is wrong.
        remedy: what to type to get it, or empty.
        required: the runtime does not work without it.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""
    required: bool = False


def install_extra(name: str, options: str = "") -> str:
    """How to get an extra of samrt, which is on no package index; `options` for pip end with a space."""
    return f"in a checkout of samrt: pip install {options}'.[{name}]'"


def version_of(module: str, package: str = "") -> str | None:
    """The version of an importable package, found without importing it; None when it cannot be imported."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:  # of a submodule, when what it is in is not there
        return None
    try:
        return importlib.metadata.version(package or module)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"
