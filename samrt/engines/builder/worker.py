"""What the child process of `samrt.engines.builder.child` runs.

Its stdin is a file with the request, in whose place it puts the plan; its stdout gets one JSON object a line. What
libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from samrt.engines.builder.engine import BuildOptions, BuiltEngine, build_engine
from samrt.engines.flavours import import_flavour
from samrt.engines.plugin import register_for_parser
from samrt.engines.profiles import Range
from samrt.errors import OutputError, Reason, SamrtError
from samrt.progress import Silent

_PR_SET_PDEATHSIG = 1


class _Parent(Silent):
    """The parent, to whom messages go."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="ascii")
        self._pipe.write("\n")  # whatever Python printed while it started may have no end of a line
        os.dup2(2, 1)

    def tell(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self._pipe, flush=True)

    def say(self, line: str | Reason) -> None:
        self.tell({"say": str(line)})


def main() -> None:
    """Build what is asked for, and tell the parent what came of it."""
    # A terminal sends Ctrl-C to both; the parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = _Parent()
    with open(0, "r+b", closefd=False) as file:
        request = json.load(file)
        _end_with(request["parent"])
        _be_the_first_to_go()
        try:
            built = _build(request, parent)
            put(built.plan, file)
        except SamrtError as error:
            parent.tell(
                {
                    "error": type(error).__name__,
                    "facts": error.facts,
                    "remedy": None if error.remedy is None else asdict(error.remedy),
                }
            )
        except OSError as error:
            parent.tell({"system": [error.errno, error.strerror or str(error), error.filename]})
        else:
            known = ("memory", "seconds", "compute_capabilities", "warnings")
            parent.tell({"built": {name: getattr(built, name) for name in known}})


def put(plan: memoryview, file: IO[bytes]) -> None:
    try:
        file.seek(0)
        file.truncate()
        file.write(plan)
        file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot write an engine of {plan.nbytes} bytes beside its place: {error.strerror}; check the free space"
        ) from error


def _build(request: dict[str, Any], parent: _Parent) -> BuiltEngine:
    flavour = import_flavour(request["flavour"])
    if request["plugin"]:
        register_for_parser(flavour)
    ranges = {
        name: Range(*(tuple(shapes[key]) for key in ("minimum", "optimum", "maximum")))
        for name, shapes in request["ranges"].items()
    }
    options = dict(request["options"])
    if options["compute_capabilities"] is not None:
        options["compute_capabilities"] = tuple(options["compute_capabilities"])
    return build_engine(flavour, Path(request["onnx"]), ranges, BuildOptions(**options), parent)


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, however that ends. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _be_the_first_to_go() -> None:
    """Where memory runs out, the system ends this process rather than another: a build can be repeated."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
