"""A build in a process of its own, which a graph may crash, fill with memory or hold up without an end.

TensorRT parses and builds in C++. What a graph makes it do wrong happens to the child, and becomes an error here. The
child is a new interpreter, not a fork: it has none of this process's threads, locks and CUDA contexts.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing.spawn
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import samrt.errors
from samrt.engines.builder.engine import BuildOptions, BuiltEngine
from samrt.engines.flavours import Flavour
from samrt.engines.profiles import Range
from samrt.errors import BackendError, OutputError, Remedy, SamrtError
from samrt.progress import Progress

# Not -m, which would find modules in the working folder first. What is on the path when Python starts, such as a
# sitecustomize, runs too: the child heeds the environment where this interpreter does.
_FLAGS = [flag for flag, given in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if given]
_START = "import sys; sys.path[:] = sys.argv[1:]; from samrt.engines.builder.worker import main; main()"
# Seconds between two looks at the child.
_PERIOD = 0.1
# Seconds that a child has for its end.
_PATIENCE = 10.0
# Of the memory that is free when a build begins; beyond it a machine is busy with moving pages.
_SHARE = 0.9
# Bytes of what the child's libraries print; the last line is told where it crashes.
_TAIL = 4096

Message = Mapping[str, Any]


def build_in_child(
    flavour: Flavour,
    onnx: Path,
    ranges: Mapping[str, Range],
    options: BuildOptions,
    progress: Progress,
    folder: Path,
    plugin: bool = False,
) -> BuiltEngine:
    """`build_engine` in a child process. Ctrl-C, or an exception out of `progress`, ends the child at once.

    Args:
        flavour: as all up to `progress` that of `build_engine`.
        onnx: the graph.
        ranges: of its inputs.
        options: with the child's limits of memory and time.
        progress: is told in the calling thread.
        folder: where the plan may lie; nothing in it is left.
        plugin: whether the graph needs samrt's plugin, which the child then loads.

    Raises:
        BackendError: as `build_engine`, or the child crashes, is past a limit, or cannot be started.
        OutputError: as `build_engine`, or `folder` is full or not writable.
        SamrtError: as `build_engine`.
    """
    request = {
        "flavour": flavour.name,
        "onnx": str(onnx),
        "ranges": {name: asdict(each) for name, each in ranges.items()},
        # A path may be of any class.
        "options": asdict(replace(options, timing_cache=options.timing_cache and os.fsdecode(options.timing_cache))),
        "plugin": plugin,
        "parent": os.getpid(),
    }
    # The child reads the request from this file and puts the plan in its place. It has no name, so that whatever ends
    # this process leaves nothing.
    with _file_with(json.dumps(request).encode(), folder) as file:
        child = _Child(file)
        try:
            answer = child.answer(_Limits(child.process.pid, flavour, onnx, options), progress)
        finally:
            child.end()
        if answer is None:
            raise child.failure(flavour, onnx)
        if "built" not in answer:
            raise _error(answer)
        plan = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _built(plan, **answer["built"])


def _file_with(content: bytes, folder: Path) -> IO[bytes]:
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (the caller closes it)
        file.write(content)
        file.seek(0)
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror}; check the permissions and the free space"
        ) from error
    return file


class _Child:
    def __init__(self, file: IO[bytes]) -> None:
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._began = False
        self._tail = b""
        # What programs that embed Python set where sys.executable is none.
        python = multiprocessing.spawn.get_executable()
        self._python = os.fsdecode(python) if python else ""
        if not python or (getattr(sys, "frozen", False) and self._python == sys.executable):
            raise self._unstarted("this program has no Python interpreter of its own")
        path = [each for each in sys.path if isinstance(each, str)]
        try:
            self.process = subprocess.Popen(
                [python, *_FLAGS, "-c", _START, *path], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise self._unstarted(f"{self._python}: {error.strerror}") from error

    def answer(self, limits: _Limits, progress: Progress) -> Message | None:
        """The child's last message, or None where it ended without one; progress is told meanwhile."""
        for read, pipe in ((self._listen, self.process.stdout), (self._overhear, self.process.stderr)):
            self._readers.append(threading.Thread(target=read, args=[pipe], name="samrt-build", daemon=True))
            self._readers[-1].start()
        while True:
            limits.check()
            try:
                # In steps, as in samrt/backends/interruptible.py.
                message = self._messages.get(timeout=_PERIOD)
            except queue.Empty:
                continue
            self._began = self._began or message is not None
            if message is None or "say" not in message:
                # It has no more to do than to end, and to leave the GPU.
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_PATIENCE)
                return message
            progress.say(message["say"])

    def end(self) -> None:
        """End the child if it is still there."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            if reader.ident is not None:
                reader.join()

    def failure(self, flavour: Flavour, onnx: Path) -> BackendError:
        """Why a child that has ended gave no answer."""
        code = self.process.returncode
        said = self._tail.decode(errors="replace").strip().rpartition("\n")[2].strip()
        how = f"{_signal_name(-code)}" if code < 0 else f"exit status {code}"
        how = f"{how}: {said}" if said else how
        if not self._began and code >= 0:
            return self._unstarted(f"{self._python} ended with {how}")
        if -code == getattr(signal, "SIGKILL", None):
            return BackendError(
                f"the process in which {flavour.title} built {onnx} was killed ({how}), as the system does where "
                "memory runs out",
                Remedy("free memory, or build with a smaller {max_batch}, {max_prompts} or {max_points}"),
            )
        return BackendError(
            f"{flavour.title} crashed while it built {onnx} ({how})",
            Remedy(
                "use another version of TensorRT, or export the checkpoint again with another {lowering}; if samrt "
                "exported this graph, please report it"
            ),
        )

    def _unstarted(self, why: str) -> BackendError:
        return BackendError(
            f"the process for the build did not start: {why}; name a Python interpreter that can import samrt with "
            "multiprocessing.set_executable"
        )

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                message = _message(line)
                if message is not None:
                    self._messages.put(message)
        self._messages.put(None)

    def _overhear(self, pipe: IO[bytes]) -> None:
        with pipe:
            while block := os.read(pipe.fileno(), _TAIL):
                self._tail = (self._tail + block)[-_TAIL:]


class _Limits:
    """How much memory and time a child may take."""

    def __init__(self, process: int, flavour: Flavour, onnx: Path, options: BuildOptions) -> None:
        self._statistics = Path(f"/proc/{process}/statm")
        self._what = f"{flavour.title} was stopped while it built {onnx}"
        self._seconds = options.time_limit_s
        self._deadline = time.monotonic() + self._seconds
        mib = options.memory_limit_mib
        self._bytes = _SHARE * _free_memory() if mib is None else mib << 20

    def check(self) -> None:
        """Raise a BackendError where the child is past a limit.

        Its memory is looked at, not bounded by the system: CUDA reserves addresses as large as all memory of the
        machine and its GPUs.
        """
        if time.monotonic() > self._deadline:
            raise BackendError(
                f"{self._what}: it took more than {self._seconds:g} seconds",
                Remedy("if the graph is one that you trust, raise {time_limit_s}"),
            )
        if self._memory() > self._bytes:
            raise BackendError(
                f"{self._what}: it took more than {self._bytes / (1 << 20):.0f} MiB of memory",
                Remedy(
                    "free memory, build with a smaller {max_batch}, {max_prompts} or {max_points}, or set "
                    "{memory_limit_mib}"
                ),
            )

    def _memory(self) -> int:
        """The bytes that are the child's alone; 0 where the system does not tell."""
        try:
            _, resident, shared = self._statistics.read_text().split()[:3]
            return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return 0


def _message(line: bytes) -> Message | None:
    """None for a line of another's, such as a sitecustomize that prints, and for one that was cut short."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _free_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return float("inf")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _built(
    plan: memoryview, memory: dict[str, int], seconds: float, compute_capabilities: list[str], warnings: list[str]
) -> BuiltEngine:
    return BuiltEngine(plan, memory, seconds, tuple(compute_capabilities), tuple(warnings))


def _error(answer: Message) -> SamrtError | OSError:
    """The exception that the child met."""
    if "system" in answer:
        return OSError(*answer["system"])
    remedy = answer["remedy"]
    # JSON has no tuples, and no argument of a remedy is a list.
    arguments = {} if remedy is None else {name: _as_tuple(value) for name, value in remedy["arguments"].items()}
    made: SamrtError = getattr(samrt.errors, answer["error"])(
        answer["facts"], None if remedy is None else Remedy(remedy["text"], arguments)
    )
    return made


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
