"""The library's reasons in the words of the command line: the only place that knows which argument is which flag."""

from __future__ import annotations

from samrt.errors import Reason

_COMMANDS = {"build_bundle": "`samrt build`", "export": "`samrt export`"}
# The other flags are the argument's name.
_FLAGS = {
    "output": "-o",
    "precisions": "--precision",
    "memory_limit_mib": "--memory-limit",
    "time_limit_s": "--time-limit",
}


def in_flags(reason: Reason) -> str:
    """What `str(reason)` says, with flags in place of Python's arguments."""
    return reason.facts if reason.remedy is None else f"{reason.facts}; {reason.remedy.said(_in_flags)}"


def _in_flags(name: str, value: object) -> str:
    if value is None and name in _COMMANDS:
        return _COMMANDS[name]
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    if value is None or value is True:
        return flag
    return f"{flag} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
