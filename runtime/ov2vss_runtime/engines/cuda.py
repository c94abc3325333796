"""Memory and work queue of one NVIDIA GPU, through ``cuda-bindings``: no more of CUDA than the TensorRT engine needs.

Written against the documented interface; not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import BackendError


class Cuda:
    """The calls of the CUDA runtime, on one stream; addresses are integers.

    Raises:
        BackendError: cuda-bindings, a driver or a GPU is missing, or a call fails.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            raise BackendError("cuda-bindings is not installed", "run: pip install cuda-bindings") from None
        self._runtime = runtime
        count = self._call("cudaGetDeviceCount")
        if count == 0:
            raise BackendError("there is no NVIDIA GPU", "use --backend onnxruntime or openvino")
        self.stream = int(self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking))

    def _call(self, name: str, *args: Any) -> Any:
        error, *values = getattr(self._runtime, name)(*args)
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise BackendError(
                f"{name} failed: {error.name}", "check the driver with nvidia-smi, or use --backend onnxruntime"
            )
        return values[0] if values else None

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def allocate_host(self, size: int) -> int:
        """Page-locked memory of the processor, which copies to and from the GPU can overlap with work."""
        return int(self._call("cudaMallocHost", size))

    def upload(self, target: int, source: int, size: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, self.stream)

    def download(self, target: int, source: int, size: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, self.stream)

    def clear(self, target: int, size: int) -> None:
        self._call("cudaMemsetAsync", target, 0, size, self.stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` puts on the stream as a CUDA graph; the result launches it."""
        self._call(
            "cudaStreamBeginCapture", self.stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        )
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        return lambda: self._call("cudaGraphLaunch", executable, self.stream)


class Pool:
    """Blocks of memory that are used again: after the first frames nothing is allocated any more.

    A block may be given back while the GPU still works on it: everything runs in order on one stream.
    """

    def __init__(self, allocate: Callable[[int], int]) -> None:
        self._allocate = allocate
        self._free: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self.blocks = 0

    def take(self, size: int) -> int:
        with self._lock:
            free = self._free.setdefault(size, [])
            if free:
                return free.pop()
            self.blocks += 1
        return self._allocate(size)

    def give(self, address: int, size: int) -> None:
        with self._lock:
            self._free[size].append(address)


class DeviceArray:
    """An array on the GPU; its memory goes back to the pool with the last reference.

    Attributes:
        address: of its first byte.
    """

    def __init__(self, pool: Pool, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.size = math.prod(self.shape) * self.dtype.itemsize
        self.address = pool.take(self.size)
        weakref.finalize(self, pool.give, self.address, self.size)

    def row(self, index: int) -> int:
        """Address of ``self[index]``."""
        return self.address + index * self.size // max(1, self.shape[0])


def host_array(pool: Pool, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """A numpy array in page-locked memory, which goes back to the pool with the last view of it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    address = pool.take(size)
    block = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(block, pool.give, address, size)
    return np.frombuffer(block, dtype).reshape(shape)
