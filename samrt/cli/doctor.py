"""`samrt doctor`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from samrt.cli.streams import show

DESCRIPTION = "Show which parts of samrt work on this machine, and how to fix or install the others."

EPILOG = """\
status of each line:
  ok       works
  missing  optional and not installed, or a backend that needs such a part; not needed to segment on the CPU
  broken   installed but failing, or required and not installed; the next line says what to do

examples:
  samrt doctor
  samrt doctor --json > report.json      to attach to a bug report

exit status: 0 when the runtime works, 1 when it does not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 when the runtime works, else 1."""
    from samrt.doctor.runtime import examine, runtime_works

    findings = examine()
    works = runtime_works(findings)
    if arguments.json:
        print(json.dumps({"runtime_works": works, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0 if works else 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        show(f"{finding.status:7}  {finding.name:{width}}  {finding.detail}")
        if finding.remedy and finding.status != "ok":
            show(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    show()
    show("The runtime works." if works else "The runtime does not work: see the lines marked broken.")
    return 0 if works else 1
