"""The GPUs, the driver and the TensorRT of this machine. Standard library only."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# CUresult of cuInit if there is a driver but no device (cuda.h).
_NO_DEVICE = 100
# CUdevice_attribute (cuda.h).
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76

_TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device.

    Attributes:
        name: The driver's name for it.
        compute_capability: "9.0"; plans are bound to it.
        memory_bytes: The total memory of the device.
    """

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan must fit.

    Attributes:
        gpus: The devices in the driver's order.
        gpu_problem: Why there are no GPUs, with the remedy; None if there are.
        cuda: The newest CUDA that the driver runs, "13.0"; None without a driver.
        tensorrt: The version of the runtime, "10.12.0"; None if none is found.
    """

    gpus: tuple[Gpu, ...]
    gpu_problem: str | None
    cuda: str | None
    tensorrt: str | None


def this_machine(*, of_python: bool = False) -> Machine:
    """Ask the driver and the TensorRT library. Only the driver itself is initialised.

    Args:
        of_python: Whether to look at the TensorRT of the Python package, which builds engines and
            runs them in the embedded server, or at the system's, which Triton's backend loads.
    """
    if of_python:
        _import_tensorrt()
    tensorrt = tensorrt_version()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Machine((), _no_driver(), None, tensorrt)
    status = driver.cuInit(0)
    if status != 0:
        problem = _no_device() if status == _NO_DEVICE else _broken_driver(status)
        return Machine((), problem, None, tensorrt)
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    driver.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(driver, ordinal) for ordinal in range(number.value))
    return Machine(gpus, None if gpus else _no_device(), cuda, tensorrt)


def tensorrt_version() -> str | None:
    """Return the version of the TensorRT that would load a plan here; None if none is found."""
    module = sys.modules.get("tensorrt")
    if module is None:
        for name in _TENSORRT_LIBRARIES:
            try:
                return version_of_number(ctypes.CDLL(name).getInferLibVersion())
            except (OSError, AttributeError):
                continue
        # The Python package has its own libraries, which the loader does not find.
        module = _import_tensorrt()
    if module is not None:
        return str(module.__version__)
    return os.environ.get("TRT_VERSION", "").partition("+")[0] or None


def version_of_number(number: int) -> str:
    """Turn 8601 into "8.6.1", and 101200 into "10.12.0": the factors changed with version 10."""
    if number >= 100_000:
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def version_numbers(version: str) -> tuple[int, int, int]:
    """Return major, minor and patch of "10.12.0.36". A plan is bound to these three.

    Raises:
        ValueError: The text does not begin with a number.
    """
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    if not numbers:
        raise ValueError(f"{version!r} is not a version")
    major, minor, patch = [*numbers, 0, 0][:3]
    return major, minor, patch


def _import_tensorrt() -> Any:
    try:
        import tensorrt  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        return None
    return tensorrt


def _gpu(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    device = ctypes.c_int()
    _ask(driver.cuDeviceGet, ctypes.byref(device), ordinal)
    name = ctypes.create_string_buffer(256)
    _ask(driver.cuDeviceGetName, name, len(name), device)
    memory = ctypes.c_size_t()
    # The driver exports the 64-bit call under this name.
    _ask(driver.cuDeviceTotalMem_v2, ctypes.byref(memory), device)
    numbers: list[int] = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _ask(driver.cuDeviceGetAttribute, ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    return Gpu(name.value.decode(), f"{numbers[0]}.{numbers[1]}", memory.value)


def _ask(call: Callable[..., int], *arguments: object) -> None:
    status = call(*arguments)
    if status != 0:
        raise OSError(f"{getattr(call, '__name__', call)} of the NVIDIA driver answered {status}")


def _no_driver() -> str:
    return (
        "there is no NVIDIA driver on this machine (libcuda.so.1 is missing): install it, or start "
        "the container with a GPU (`--gpus all`, or the compose file as it is)"
    )


def _no_device() -> str:
    return (
        "the NVIDIA driver sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES, and that the "
        "container was given a GPU"
    )


def _broken_driver(status: int) -> str:
    return (
        f"the NVIDIA driver does not start (cuInit answered {status}): check `nvidia-smi`; "
        "after an update of the driver, restart the machine"
    )
