"""Whether an error means that memory ran out, whatever library it comes from."""

from __future__ import annotations

import errno
import re

from samrt.errors import BundleError, InputError, OutputError

# Python and numpy raise MemoryError. ONNX Runtime says "bad allocation" or "Failed to allocate memory", torch "can't
# allocate memory" or "out of memory", OpenCV "Insufficient memory", CUDA CUDA_ERROR_OUT_OF_MEMORY, C++ std::bad_alloc,
# the loader of libraries "failed to map segment from shared object".
# A backslash begins the end of a line in the text of samrt's own errors.
_SAID = re.compile(
    r"(?P<words>(failed to|unable to|cannot|can't) allocate[^\n\\;]*"
    r"|[^\n\\;:]*(bad[ _]alloc|out[ _]?of[ _]?memory|insufficient memory|failed to map segment)[^\n\\;]*)",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException | None) -> str | None:
    """What the error, or one that led to it, says of memory that ran out; None for other errors."""
    while error is not None:
        if _is(error):
            # Of ONNX Runtime's many words, those that say it.
            said = _SAID.search(str(error))
            return (said["words"] if said else str(error)).strip() or "an allocation failed"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _is(error: BaseException) -> bool:
    # These name files, whose names may say anything.
    if isinstance(error, InputError | BundleError | OutputError):
        return False
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(_SAID.search(str(error)))
