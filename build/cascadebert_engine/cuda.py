"""The few calls of the CUDA runtime that a session needs: device memory, one stream, graphs.

Polygraphy finds and loads the runtime library; it has no calls for graphs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CudaError, NoGpu

# cudaStreamCaptureModeThreadLocal (driver_types.h): other threads may allocate during a capture.
_CAPTURE_THREAD_LOCAL = 1


class Cuda:
    """A device and its stream.

    Attributes:
        stream: The handle of the stream that everything here runs on.
    """

    def __init__(self, device: int = 0) -> None:
        """Make `device` the current one of this thread.

        Raises:
            NoGpu: The runtime library, the driver or the device is missing.
        """
        try:
            from polygraphy import cuda  # pyright: ignore[reportMissingImports]

            self._wrapper: Any = cuda.wrapper()
            self._kinds: Any = cuda.MemcpyKind
            self._library: Any = self._wrapper.handle
        except Exception as exc:
            raise NoGpu(
                f"the CUDA runtime library cannot be loaded ({exc}): pip install the "
                "nvidia-cuda-runtime of the CUDA that TensorRT uses, or use NVIDIA's images"
            ) from exc
        self.ask("cudaSetDevice", ctypes.c_int(device))
        handle = ctypes.c_void_p()
        self.ask("cudaStreamCreate", ctypes.byref(handle))
        self.stream = int(handle.value or 0)

    def allocate(self, nbytes: int) -> Memory:
        """Allocate `nbytes` of device memory.

        Raises:
            NoGpu: The device has too little free memory.
        """
        pointer = ctypes.c_void_p()
        self.ask("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return Memory(self, int(pointer.value or 0), nbytes)

    def runtime_version(self) -> str:
        """Return the runtime library's version, "12.9"; an older major driver cannot run it."""
        number = ctypes.c_int()
        self.ask("cudaRuntimeGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def free_bytes(self) -> int:
        """Return the free memory of the device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.ask("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        self.ask("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    @contextmanager
    def capture(self) -> Generator[list[Graph], None, None]:
        """Record what the block puts on the stream; afterwards the yielded list holds the graph."""
        stream = ctypes.c_void_p(self.stream)
        captured: list[Graph] = []
        self.ask("cudaStreamBeginCapture", stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        graph = ctypes.c_void_p()
        try:
            yield captured
        finally:
            # A failed capture must end too, or the stream cannot be used.
            status = self._library.cudaStreamEndCapture(stream, ctypes.byref(graph))
        if status != 0 or not graph.value:
            raise CudaError(
                f"CUDA captured no graph (error {status}): serve with cuda_graphs = false"
            )
        executable = ctypes.c_void_p()
        self.ask(
            "cudaGraphInstantiateWithFlags",
            ctypes.byref(executable), graph, ctypes.c_ulonglong(0),
        )  # fmt: skip
        self.ask("cudaGraphDestroy", graph)
        captured.append(Graph(self, int(executable.value or 0)))

    def close(self) -> None:
        """Destroy the stream."""
        self.ask("cudaStreamDestroy", ctypes.c_void_p(self.stream))

    def copy(self, destination: int, source: int, nbytes: int, *, to_device: bool) -> None:
        """Copy between host and device, on the stream."""
        kind = self._kinds.HostToDevice if to_device else self._kinds.DeviceToHost
        self.ask(
            "cudaMemcpyAsync",
            ctypes.c_void_p(destination), ctypes.c_void_p(source), ctypes.c_size_t(nbytes), kind,
            ctypes.c_void_p(self.stream),
        )  # fmt: skip

    def ask(self, name: str, *arguments: Any) -> None:
        """Call a function of the runtime library.

        Raises:
            NoGpu: There is no usable GPU, or it has too little memory.
            CudaError: The function returned another error.
        """
        call: Callable[..., int] = getattr(self._library, name)
        status = call(*arguments)
        if status != 0:
            error = NoGpu if status in _ADVICE else CudaError
            raise error(f"{name} of the CUDA runtime answered error {status}: {_advice(status)}")


class Memory:
    """A block of device memory."""

    def __init__(self, cuda: Cuda, pointer: int, nbytes: int) -> None:
        """Own the `nbytes` at `pointer` of `cuda`."""
        self._cuda = cuda
        self._nbytes = nbytes
        self.pointer = pointer

    def copy_from(self, host: NDArray[Any]) -> None:
        """Put a contiguous array into the block, on the stream."""
        self._require(host)
        self._cuda.copy(self.pointer, host.ctypes.data, host.nbytes, to_device=True)

    def copy_to(self, host: NDArray[Any]) -> None:
        """Fill a contiguous array from the block, on the stream."""
        self._require(host)
        self._cuda.copy(host.ctypes.data, self.pointer, host.nbytes, to_device=False)

    def free(self) -> None:
        """Free the block."""
        self._cuda.ask("cudaFree", ctypes.c_void_p(self.pointer))

    def _require(self, host: NDArray[Any]) -> None:
        if host.nbytes > self._nbytes:
            raise ValueError(f"{host.nbytes} bytes do not fit a block of {self._nbytes}")


class Graph:
    """Kernels that are launched together."""

    def __init__(self, cuda: Cuda, executable: int) -> None:
        """Own `executable` of `cuda`."""
        self._cuda = cuda
        self._executable = executable

    def launch(self) -> None:
        """Put the graph on the stream."""
        self._cuda.ask(
            "cudaGraphLaunch",
            ctypes.c_void_p(self._executable), ctypes.c_void_p(self._cuda.stream),
        )  # fmt: skip

    def destroy(self) -> None:
        """Free its resources."""
        self._cuda.ask("cudaGraphExecDestroy", ctypes.c_void_p(self._executable))


# Values of cudaError (driver_types.h) that have a remedy.
_ADVICE = {
    2: "too little GPU memory: end what else uses it, or lower max_batch_size or the instances",
    35: "the driver is older than this CUDA: update it",
    100: "no GPU is visible: check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
    101: "there is no GPU of this number: check CUDA_VISIBLE_DEVICES",
}


def _advice(status: int) -> str:
    return _ADVICE.get(status, "check `nvidia-smi`, and the driver's log (`dmesg`)")


def padded_to_rows(array: NDArray[np.int32], rows: int) -> NDArray[np.int32]:
    """Return the array as C-contiguous int32, its last row repeated until it has `rows` rows.

    A repeated row is real text; a row of padding could give NaN.
    """
    if len(array) < rows:
        array = np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
    return np.ascontiguousarray(array, dtype=np.int32)
