"""Arguments that a function of the C interface must refuse."""

from __future__ import annotations

import ctypes

from samrt.errors import BackendError
from samrt.kernels.library import Kernels


def expect_refusal(kernels: Kernels, function: str, args: ctypes.Structure | None, message: str) -> None:
    """Raises AssertionError where the call does not fail, or its error does not have `message` in it."""
    try:
        kernels.call(function, ctypes.byref(args) if args is not None else None, None)
        said = "nothing"
    except BackendError as error:
        said = str(error)
    assert message in said, f"{function} should say {message!r}, and says: {said}"
