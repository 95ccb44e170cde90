"""The process of one phase: runs it, and writes how it ended beside what it measured."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

from isolated import end_with_parent
from work import NotHereError, Work, WrongResultError

_MARGIN_S = 2  # for a phase that watches its time to end by itself


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase")
    parser.add_argument("folder", type=Path)
    parser.add_argument("limit", type=float)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    end_with_parent()
    work = Work(arguments.folder, arguments.phase, arguments.smoke, time.monotonic() + arguments.limit - _MARGIN_S)
    outcome: dict[str, object] = {"status": "ok"}
    try:
        importlib.import_module(f"phases.{arguments.phase}").run(work)
        failed = [name for name, well in work.attempts.items() if not well]
        if failed and len(failed) == len(work.attempts):
            outcome = {"status": "failed", "reason": f"nothing that was tried went well: {'; '.join(failed)}"}
        elif failed:
            outcome["failed_attempts"] = failed
    except NotHereError as reason:
        outcome = {"status": "skipped", "reason": str(reason)}
    except WrongResultError as reason:
        outcome = {"status": "failed", "reason": str(reason)}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:1000]}
    (arguments.folder / f"{arguments.phase}.outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
