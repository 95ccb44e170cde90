"""The main program of a file of checks: runs those that are named on the host build of the kernels."""

from __future__ import annotations

import ctypes
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from guarded_memory import Device, host_device

from samrt.kernels.library import Kernels


def check_main(checks: Mapping[str, Callable[[Kernels, Device], None]]) -> None:
    """Arguments: the library, then names of checks; none: all.

    For each it prints `check NAME`, what the check says, and `passed` with its processor time, or what was wrong. A
    check that a sanitizer stops ends the process.
    """
    kernels = Kernels(Path(sys.argv[1]))
    failed = False
    for name in sys.argv[2:] or checks:
        print(f"check {name}", flush=True)
        start = time.process_time()
        # Threads in another order for each check, and in the same one whenever it is run.
        ctypes.CDLL(str(kernels.path))["samrt_host_set_seed"](ctypes.c_uint64(zlib.crc32(name.encode())))
        try:
            checks[name](kernels, host_device())
            print(f"passed in {time.process_time() - start:.1f} s", flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed = True
    sys.exit(failed)
