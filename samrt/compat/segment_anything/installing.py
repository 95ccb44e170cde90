"""Putting the package in Meta's place, and which bundle its models are loaded from."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from samrt.bundle.default import default_bundle
from samrt.bundle.folder import Bundle, open_bundle
from samrt.compat.segment_anything.checkpoints import bundle_of
from samrt.compat.segment_anything.modeling.sam import Sam
from samrt.device.session import DeviceOptions
from samrt.engines.selection import check_backend
from samrt.errors import SamrtError

_OURS, _METAS = "samrt.compat.segment_anything", "segment_anything"


@dataclass
class _Settings:
    """What models are loaded with."""

    bundle: Bundle | Path | None = None
    backend: str = "auto"
    device_options: DeviceOptions | None = None
    precision: str | None = None
    threads: int | None = None


_settings = _Settings()
# Meta's own modules that `install` took out, for `uninstall`.
_displaced: dict[str, ModuleType] = {}


def install(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    backend: str = "auto",
    device_options: DeviceOptions | None = None,
    *,
    precision: str | None = None,
    threads: int | None = None,
    replace: bool = False,
) -> None:
    """Make `import segment_anything`, in all of its modules, mean this package, for the whole process.

    Call it before anything imports `segment_anything`. Installed again, it changes the settings.

    Args:
        bundle: what `checkpoint=None` loads; None: the model that comes with samrt.
        backend: for all models, as `samrt.load`; so are `device_options`, `precision` and `threads`.
        replace: take the place of Meta's package where that is imported already. Names that other modules took from it
            stay Meta's.

    Raises:
        BundleError: as `samrt.load`.
        BackendError: there is no such backend.
        SamrtError: Meta's package is imported already.
    """
    check_backend(backend)
    if bundle is not None and not isinstance(bundle, Bundle):
        # Opened again for each model: it may be exported again in the meantime, and the program may change its folder.
        bundle = open_bundle(bundle).folder
    imported = sys.modules.get(_METAS)
    if imported is not None and imported is not sys.modules[_OURS]:
        if not replace:
            raise SamrtError(
                f"segment_anything is imported already, from {getattr(imported, '__file__', None)}; call install "
                "before the first module that imports it, or install(replace=True), which names that were taken from "
                "it already do not follow"
            )
        for name in _names(_METAS):
            _displaced[name] = sys.modules.pop(name)
    for name in _names(_OURS):
        sys.modules[_METAS + name.removeprefix(_OURS)] = sys.modules[name]
    _settings.__dict__.update(_Settings(bundle, backend, device_options, precision, threads).__dict__)


def uninstall() -> None:
    """Undo `install`: the next `import segment_anything` is Meta's package, if there is one."""
    if sys.modules.get(_METAS) is sys.modules[_OURS]:
        for name in _names(_METAS):
            del sys.modules[name]
    sys.modules.update(_displaced)
    _displaced.clear()
    _settings.__dict__.update(_Settings().__dict__)


def load_sam(checkpoint: str | os.PathLike[str] | None) -> Sam:
    """The model of `build_sam`."""
    bundle = bundle_of(checkpoint) if checkpoint is not None else _settings.bundle or default_bundle()
    return Sam(
        bundle if isinstance(bundle, Bundle) else open_bundle(bundle),
        _settings.backend,
        _settings.device_options,
        precision=_settings.precision,
        threads=_settings.threads,
    )


def _names(package: str) -> list[str]:
    """The package and what of it is imported."""
    return [name for name in list(sys.modules) if f"{name}.".startswith(f"{package}.")]
