"""Errors of samrt. Each message says what was wrong and what to do about it."""

from __future__ import annotations


class SamrtError(Exception):
    """Base of every error that samrt raises on purpose."""


class InputError(SamrtError, ValueError, AssertionError):
    """An image or a prompt that cannot be used.

    It is a `ValueError`; it is an `AssertionError` too because Meta's `SamPredictor` checks its input with asserts,
    and code written for it may catch those.
    """


class BundleError(SamrtError, ValueError):
    """A bundle, embedding or checkpoint file that is missing, damaged, tampered with or of another kind."""


class BackendError(SamrtError, RuntimeError):
    """A backend that is unknown, not installed, or failed to run."""


class OutputError(SamrtError, OSError):
    """A file that could not be written; what was there before is untouched."""


class ExportError(SamrtError, RuntimeError):
    """An export that failed, or whose result differs from the checkpoint by more than the tolerance."""
