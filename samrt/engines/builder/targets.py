"""Which GPUs an engine is built for, as compute capabilities: "8.9"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from samrt.engines.flavours import Flavour
from samrt.errors import BackendError, InputError

# TensorRT-RTX 1.7 has no float32 matrix product for Turing, so the decoder does not build; and an engine for Turing and
# others may be slower on the others (NVIDIA's support matrix). So it is built for when asked for.
_ONLY_ON_REQUEST = ("7.5",)


@dataclass(frozen=True)
class Targets:
    """Compute capabilities, and the `ComputeCapability` values that ask for them; none where there is no choice."""

    compute_capabilities: tuple[str, ...]
    values: tuple[Any, ...] = ()


def choose_targets(flavour: Flavour, wanted: tuple[str, ...] | None) -> Targets:
    """What to build for; None stands for the first GPU here.

    TensorRT for RTX builds without a GPU too: None then stands for all that it knows, but for Turing (7.5).

    Raises:
        InputError: this flavour cannot build for one of those wanted here.
        BackendError: stock TensorRT, and no GPU was found.
    """
    from samrt.device.gpus import find_gpus

    gpus = find_gpus()
    if not flavour.is_rtx:
        return _stock_targets(flavour, wanted, gpus[0].compute_capability if gpus else None)
    known = _known(flavour)
    if wanted is None and gpus:
        return Targets((gpus[0].compute_capability,), (flavour.module.ComputeCapability.CURRENT,))
    if wanted is None:
        wanted = tuple(name for name in known if name not in _ONLY_ON_REQUEST)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise InputError(
            f"{flavour.title} cannot build for {', '.join(map(repr, unknown)) or 'no compute capability at all'}; "
            f"choose among {', '.join(known)}"
        )
    wanted = tuple(dict.fromkeys(wanted))
    return Targets(wanted, tuple(known[name] for name in wanted))


def set_targets(config: Any, targets: Targets) -> None:
    """Tell a TensorRT-RTX builder configuration."""
    config.num_compute_capabilities = len(targets.values)
    for index, value in enumerate(targets.values):
        if not config.set_compute_capability(value, index):
            raise BackendError(f"TensorRT-RTX refused the compute capability {value.name}; choose another one")


def _stock_targets(flavour: Flavour, wanted: tuple[str, ...] | None, here: str | None) -> Targets:
    if here is None:
        raise BackendError(
            f"{flavour.title} builds for the GPU at hand, and none was found: check the driver with `nvidia-smi` "
            "and that cuda-core is installed, or build with tensorrt_rtx, which needs no GPU"
        )
    if wanted is not None and tuple(wanted) != (here,):
        raise InputError(
            f"{flavour.title} builds for the GPU at hand alone, {here}, not for {', '.join(wanted) or 'none'}: build "
            "on the machine that will run the engine, or with tensorrt_rtx"
        )
    return Targets((here,))


def _known(flavour: Flavour) -> dict[str, Any]:
    """In the order of their numbers: "7.5", ..., "12.1"."""
    members = flavour.module.ComputeCapability.__members__
    numbered = {int(m[1]): members[m[0]] for m in map(re.compile(r"SM(\d+)").fullmatch, members) if m}
    return {f"{number // 10}.{number % 10}": numbered[number] for number in sorted(numbered)}
