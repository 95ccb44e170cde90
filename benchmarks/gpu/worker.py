"""The process of one of `workers/`: `serve(work, report, **arguments)`, started and heard by `isolated`.

python worker.py NAME FOLDER SECONDS [--smoke]; on standard input {"done": [[KEYS, VALUE], ...], "arguments": {...}}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

from driver import Driver, DriverError
from isolated import Reporter, end_with_parent
from work import Work


def main(name: str, folder: str, seconds: str, *options: str) -> None:
    end_with_parent()
    told = json.load(sys.stdin)
    smoke = "--smoke" in options
    driver = None if smoke else Driver()

    def usable() -> bool:
        try:
            if driver is not None:
                driver.synchronize()
        except DriverError:
            return False
        return True

    work = Work(Path(folder), f"worker {name}", smoke, time.monotonic() + float(seconds))
    importlib.import_module(f"workers.{name}").serve(work, Reporter(told["done"], usable), **told["arguments"])


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # taking torch apart takes a second, and everything is said
