"""`python -m samrt`: the command line where the `samrt` script is not on the path."""

from __future__ import annotations

import sys

from samrt.cli import main

if __name__ == "__main__":
    sys.exit(main())
