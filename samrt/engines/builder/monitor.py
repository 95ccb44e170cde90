"""How far a build is, and stopping it: the build in a thread of its own, the caller's thread free for Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from samrt.engines.flavours import Flavour
from samrt.progress import Progress

# Between two messages, in seconds.
_PERIOD = 1.0

T = TypeVar("T")


def build_monitor(flavour: Flavour) -> Any:
    """A TensorRT progress monitor: `status()` is the innermost phase and its percentage, `cancel()` ends the build.

    A cancelled build ends after the step that it is in, and returns None.
    """
    trt = flavour.module

    class BuildMonitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Called from TensorRT's threads, where an exception would end the process: it only takes notes."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._percent: dict[str, int] = {}
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            self._steps[phase] = num_steps
            self._percent[phase] = 0

        def step_complete(self, phase: str, step: int) -> bool:
            self._percent[phase] = 100 * (step + 1) // max(self._steps.get(phase, 1), 1)
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            self._percent.pop(phase, None)

        def status(self) -> str:
            phases = list(self._percent.items())
            return f"{phases[-1][0]} {phases[-1][1]}%" if phases else ""

        def cancel(self) -> None:
            self.cancelled = True

    return BuildMonitor()


def run_watched(work: Callable[[], T], monitor: Any, title: str, progress: Progress) -> T:
    """What `work()` returns, computed in another thread, with "`title`: <status of the monitor>" to `progress`.

    Python handles signals in the main thread between two of its own instructions, so a build in that thread could not
    be interrupted except inside a callback, where the exception would end the process. Whatever is raised here, by
    Ctrl-C or by `progress`, cancels the build, and is raised again when that has ended.
    """
    told = ""
    with ThreadPoolExecutor(1, "samrt-build") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], _PERIOD).done:
                status = monitor.status()
                if status and status != told:
                    told = status
                    progress.say(f"{title}: {status}")
        except BaseException:
            monitor.cancel()
            raise
    return future.result()
