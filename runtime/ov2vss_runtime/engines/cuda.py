"""One NVIDIA GPU through ``cuda-bindings``: streams, memory, events and graphs, as the TensorRT engine needs them.

Written against the documented interface and tested with a stand-in that queues everything until somebody waits; not yet
run on a GPU. Addresses, streams and events are integers.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import BackendError

KEPT_BYTES = 256 * 2**20
"""Freed memory of the GPU that the driver keeps for the next allocation, and page-locked memory that is kept here."""
CAPABILITY_ATTRIBUTES = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


def gpu_capability(device: int = 0) -> str:
    """Compute capability of an NVIDIA GPU, as ``SM89``, from the driver itself: no package is needed for it, and
    ``CUDA_VISIBLE_DEVICES`` holds.

    Raises:
        BackendError: there is no driver, or no such GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise BackendError("there is no NVIDIA GPU", "use --backend onnxruntime or openvino") from None
    handle, numbers = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
    if driver.cuInit(0) != 0:
        raise BackendError("the NVIDIA driver does not start", "check it with nvidia-smi")
    if driver.cuDeviceGet(ctypes.byref(handle), device) != 0:
        raise BackendError(f"there is no GPU {device}", "check --device and CUDA_VISIBLE_DEVICES")
    for number, attribute in zip(numbers, CAPABILITY_ATTRIBUTES, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, handle)
    return f"SM{numbers[0].value}{numbers[1].value}"


class Cuda:
    """The calls of the CUDA runtime that are needed, on one device.

    Args:
        device: its number among those that the process sees (``CUDA_VISIBLE_DEVICES`` decides which these are).

    Raises:
        BackendError: cuda-bindings, a driver or that GPU is missing, or a call fails.
    """

    def __init__(self, device: int = 0) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            raise BackendError("cuda-bindings is not installed", "run: pip install cuda-bindings") from None
        self._runtime, self.device = runtime, device
        self._thread = threading.local()
        count = self._call("cudaGetDeviceCount", on_device=False)
        if count == 0:
            raise BackendError("there is no NVIDIA GPU", "use --backend onnxruntime or openvino")
        if device >= count:
            raise BackendError(f"there is no GPU {device}", f"--device goes from 0 to {count - 1} here")
        pool = self._call("cudaDeviceGetDefaultMemPool", device)
        threshold = runtime.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        self._call("cudaMemPoolSetAttribute", pool, threshold, self._word(KEPT_BYTES))

    def _word(self, value: int) -> Any:
        """A 64-bit number as this release of the bindings wants it."""
        from cuda.bindings import driver

        return driver.cuuint64_t(value)

    def _call(self, name: str, *args: Any, on_device: bool = True) -> Any:
        if on_device and getattr(self._thread, "device", None) != self.device:
            # The current device is a property of the calling thread.
            self._thread.device = self.device
            self._call("cudaSetDevice", self.device)
        error, *values = getattr(self._runtime, name)(*args)
        if error != self._runtime.cudaError_t.cudaSuccess:
            if error == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
                raise BackendError(
                    "the GPU has no memory left", "close other programs on it, or use fewer streams or a smaller bundle"
                )
            raise BackendError(
                f"{name} failed: {error.name}", "check the driver with nvidia-smi, or use --backend onnxruntime"
            )
        return values[0] if values else None

    # -- streams and events ----------------------------------------------------------------------------------------

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def record(self, stream: int) -> int:
        """An event that is reached when what is on the stream now has been done."""
        event = self._call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming)
        self._call("cudaEventRecord", event, stream)
        return int(event)

    def wait(self, stream: int, event: int) -> None:
        """Let a stream go on only when an event is reached; the processor does not wait."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait_here(self, event: int) -> None:
        """Let the processor wait for an event."""
        self._call("cudaEventSynchronize", event)

    def forget(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    # -- memory ----------------------------------------------------------------------------------------------------

    def allocate(self, size: int, stream: int) -> int:
        """Memory of the GPU, usable on ``stream`` from here on."""
        return int(self._call("cudaMallocAsync", size, stream))

    def free(self, address: int, stream: int) -> None:
        """Give it back when what is on ``stream`` has been done."""
        self._call("cudaFreeAsync", address, stream)

    def allocate_host(self, size: int) -> int:
        """Page-locked memory of the processor, which copies to and from the GPU can overlap with work."""
        return int(self._call("cudaMallocHost", size))

    def free_host(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        self._copy(target, source, size, "cudaMemcpyHostToDevice", stream)

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        self._copy(target, source, size, "cudaMemcpyDeviceToHost", stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """From one place on the GPU to another."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice", stream)

    def _copy(self, target: int, source: int, size: int, kind: str, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._runtime.cudaMemcpyKind, kind), stream)

    def clear(self, target: int, size: int, stream: int) -> None:
        self._call("cudaMemsetAsync", target, 0, size, stream)

    # -- graphs ----------------------------------------------------------------------------------------------------

    def capture(self, work: Callable[[], None], stream: int) -> Recording:
        """Record what ``work`` puts on the stream as a CUDA graph. The first error is the one that is raised."""
        # Only this thread's calls are recorded, and other threads may go on allocating.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(BackendError):
                self._call("cudaStreamEndCapture", stream)
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return Recording(self, self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)


class Recording:
    """A recorded CUDA graph, ready to be launched."""

    def __init__(self, cuda: Cuda, executable: Any) -> None:
        self._cuda, self._executable = cuda, executable

    def launch(self, stream: int) -> None:
        self._cuda._call("cudaGraphLaunch", self._executable, stream)

    def close(self) -> None:
        """Free what it holds on the GPU."""
        if self._executable is not None:
            self._cuda._call("cudaGraphExecDestroy", self._executable)
            self._executable = None


class Memory:
    """Arrays of one device. Memory whose last reference is gone is given back at the next :meth:`collect`, never in the
    middle of another thread's recording, where it would become a part of the graph.

    Args:
        cuda: the device.
    """

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self._gone: deque[tuple[int, int, int | None]] = deque()
        self._gone_host: deque[int] = deque()
        self._host: OrderedDict[int, list[int]] = OrderedDict()
        self._host_bytes = 0
        self._lock = threading.Lock()
        self.quiet = threading.Lock()
        """Held while a stream is recorded: whatever else is put on that stream would become a part of the graph."""

    def array(self, shape: tuple[int, ...], dtype: Any, stream: int) -> DeviceArray:
        """An array ``shape`` on the GPU, of no particular content."""
        self.collect()
        return DeviceArray(self, shape, dtype, stream)

    def collect(self) -> None:
        """Give back what nobody refers to any more; not now, if a stream is being recorded."""
        if not self.quiet.acquire(blocking=False):
            return
        try:
            while self._gone:
                address, stream, event = self._gone.popleft()
                if event is not None:
                    self.cuda.forget(event)
                self.cuda.free(address, stream)
            while self._gone_host:
                self.cuda.free_host(self._gone_host.popleft())
        finally:
            self.quiet.release()

    def host(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """A numpy array in page-locked memory, which is used again after the last view of it is gone."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            free = self._host.get(size)
            address = free.pop() if free else None
            if address is not None:
                self._host_bytes -= size
        if address is None:
            address = self.cuda.allocate_host(size)
        block = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(block, self._give_host, address, size)
        return np.frombuffer(block, dtype).reshape(shape)

    def _give_host(self, address: int, size: int) -> None:
        with self._lock:
            self._host.setdefault(size, []).append(address)
            self._host.move_to_end(size)
            self._host_bytes += size
            while self._host_bytes > KEPT_BYTES:
                oldest = next(iter(self._host))
                blocks = self._host[oldest]
                if blocks:
                    self._gone_host.append(blocks.pop())
                    self._host_bytes -= oldest
                if not blocks:
                    del self._host[oldest]

    def close(self) -> None:
        """Give back all that is not in use."""
        self.collect()
        with self._lock:
            blocks = [block for free in self._host.values() for block in free]
            self._host.clear()
            self._host_bytes = 0
        for block in blocks:
            self.cuda.free_host(block)


class DeviceArray:
    """An array on the GPU.

    Attributes:
        address: of its first byte.
        stream: the stream it belongs to: where it is made and given back.
        ready: event after which its content stands, or None where only its own stream uses it.
    """

    def __init__(self, memory: Memory, shape: tuple[int, ...], dtype: Any, stream: int) -> None:
        self.shape, self.dtype, self.stream = tuple(shape), np.dtype(dtype), stream
        self.size = math.prod(self.shape) * self.dtype.itemsize
        self.address = memory.cuda.allocate(self.size, stream)
        self.ready: int | None = None
        self._memory = memory
        self._finalizer = weakref.finalize(self, memory._gone.append, (self.address, stream, None))
        self._finalizer.atexit = False

    def finished(self) -> DeviceArray:
        """Mark what is on its stream now as the making of its content: other streams then wait for it."""
        self.ready = self._memory.cuda.record(self.stream)
        self._finalizer.detach()
        gone = (self.address, self.stream, self.ready)
        self._finalizer = weakref.finalize(self, self._memory._gone.append, gone)
        self._finalizer.atexit = False
        return self

    def copy_to(self, address: int, stream: int) -> None:
        """Copy it on the GPU, as work of ``stream``: that waits until the content stands, and this array's own stream
        does not give the memory away before it has been read."""
        cuda = self._memory.cuda
        if stream != self.stream and self.ready is not None:
            cuda.wait(stream, self.ready)
        cuda.copy(address, self.address, self.size, stream)
        if stream != self.stream:
            with self._memory.quiet:
                read = cuda.record(stream)
                cuda.wait(self.stream, read)
                cuda.forget(read)

    def row(self, index: int) -> int:
        """Address of ``self[index]``."""
        return self.address + index * self.size // max(1, self.shape[0])
