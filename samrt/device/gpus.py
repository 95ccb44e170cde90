"""Which GPUs there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samrt.device.driver import as_integer, check, load_core, load_driver
from samrt.errors import BackendError, Remedy


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its index for CUDA, its name, its compute capability ("8.7") and its memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory: int


def find_gpus() -> list[Gpu]:
    """The GPUs that CUDA offers; empty where there is none, no driver, or no `cuda-core`. Creates no context."""
    try:
        driver = load_driver()
        check(driver.cuInit(0), "cuInit")
        return [_gpu(driver, index) for index in range(check(driver.cuDeviceGetCount(), "cuDeviceGetCount"))]
    except Exception:  # whatever is wrong with the driver or its bindings, nothing can run there
        return []


def find_gpu(index: int) -> Gpu:
    """The GPU of that index.

    Raises:
        BackendError: there is no driver, no `cuda-core` or no such GPU.
    """
    driver = load_driver()
    load_core()
    try:
        check(driver.cuInit(0), "cuInit")
    except RuntimeError as error:  # BackendError, and what the bindings raise where libcuda is absent
        if "NOT_INITIALIZED" in str(error):
            raise
        raise BackendError(
            f"CUDA cannot start ({error})",
            Remedy("install an NVIDIA driver, or load with {backend}", {"backend": "onnxruntime"}),
        ) from error
    count = check(driver.cuDeviceGetCount(), "cuDeviceGetCount")
    number = as_integer(index)
    if number is None or not 0 <= number < count:
        raise BackendError(f"there is no GPU {index!r}: CUDA sees {count}, counted from 0; choose one of them")
    return _gpu(driver, number)


def _gpu(driver: Any, index: int) -> Gpu:
    device = check(driver.cuDeviceGet(index), "cuDeviceGet")
    name = check(driver.cuDeviceGetName(256, device), "cuDeviceGetName")
    major, minor = (
        check(driver.cuDeviceGetAttribute(attribute, device), "cuDeviceGetAttribute")
        for attribute in (
            driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    memory = check(driver.cuDeviceTotalMem(device), "cuDeviceTotalMem")
    return Gpu(index, name.split(b"\0")[0].decode(errors="replace").strip(), f"{major}.{minor}", int(memory))
