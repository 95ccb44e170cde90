"""What to do where something that tests need, and the repository does not hold, is absent."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip the test with the reason; fail it where SAMRT_REQUIRE_DATA is set, as in continuous integration."""
    if os.environ.get("SAMRT_REQUIRE_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)
