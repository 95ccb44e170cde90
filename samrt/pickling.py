"""Models in pickles: the path and the options that they were loaded with, to be loaded again by whoever unpickles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samrt.bundle.folder import open_bundle
from samrt.bundle.manifest import Manifest
from samrt.errors import BackendError, BundleError, InputError

if TYPE_CHECKING:
    from samrt.backends.session import Session
    from samrt.device.session import DeviceOptions


@dataclass(frozen=True)
class Origin:
    """What a model was loaded from, and how: the arguments of `samrt.load`."""

    folder: Path
    manifest: Manifest
    backend: str
    device_options: DeviceOptions | None
    precision: str | None
    threads: int | None


class PickledByPath:
    """The part of a `Model` that makes `multiprocessing` and torch's DataLoader send it as its `Origin`."""

    _origin: Origin
    _session: Session

    def __reduce__(self) -> tuple[Any, ...]:
        if self._session.is_closed:
            raise BackendError("this model is closed and cannot be pickled; load the bundle again")
        options = self._origin.device_options
        if options is not None and options.stream is not None:
            raise InputError(
                "a model on a CUDA stream of the caller's cannot be pickled: the stream belongs to this process; load "
                "it without DeviceOptions.stream, or load the bundle in the other process"
            )
        return _load_again, (type(self), self._origin)

    def __copy__(self) -> Any:
        raise _no_copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise _no_copy()


def _no_copy() -> InputError:
    return InputError(
        "a loaded model cannot be copied: its graphs hold memory and threads of their own; several threads may use "
        "the one model, and another one is made by loading the bundle again"
    )


def _load_again(kind: Any, origin: Origin) -> Any:
    """The model of a pickle.

    Raises:
        BundleError: the bundle is gone or damaged, or was replaced.
        BackendError: as `samrt.load`.
    """
    try:
        bundle = open_bundle(origin.folder)
    except BundleError as error:
        raise BundleError(f"a pickled model is loaded from {origin.folder}, and {error.facts}", error.remedy) from error
    if bundle.manifest != origin.manifest:
        raise BundleError(
            f"a pickled model is loaded from {origin.folder}, and the bundle there was replaced since; load it anew, "
            "and pickle that model"
        )
    how = origin.backend, origin.device_options
    return kind(bundle, *how, precision=origin.precision, threads=origin.threads)
