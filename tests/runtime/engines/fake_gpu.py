"""A stand-in for a GPU that is as lazy as a real one may be: what is queued happens when somebody waits, not before.

Copies read page-locked memory at that moment, memory that was given back is overwritten, what is recorded runs only
when its graph is launched, and the next user of an address finds what the last one left. A plan is run by ONNX Runtime.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class FakeCuda:
    """The calls of :class:`ov2vss_runtime.engines.cuda.Cuda`, with a queue for each stream."""

    def __init__(self) -> None:
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.blocks: dict[int, Any] = {}
        self.free_blocks: dict[int, list[int]] = {}
        self.sizes: dict[int, int] = {}
        self.events: dict[int, tuple[int, int]] = {}
        self.done: dict[int, int] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.uploaded = self.downloaded = self.launches = self.captures = self.closed_graphs = 0
        self.allocated_bytes = self.host_blocks = 0
        self._number = 0

    def _next(self) -> int:
        self._number += 1
        return self._number

    # -- streams ---------------------------------------------------------------------------------------------------

    def create_stream(self) -> int:
        stream = self._next()
        self.queues[stream], self.done[stream] = [], 0
        return stream

    def _queue(self, stream: int, job: Callable[[], None]) -> None:
        if stream in self.recording:
            self.recording[stream].append(job)
        else:
            self.queues[stream].append(job)

    def _run_to(self, stream: int, count: int) -> None:
        while self.done[stream] < count:
            job = self.queues[stream][self.done[stream]]
            self.done[stream] += 1
            job()

    def synchronize(self, stream: int) -> None:
        assert stream not in self.recording, "the processor waits for a stream that is being recorded"
        self._run_to(stream, len(self.queues[stream]))

    def record(self, stream: int) -> int:
        event = self._next()
        self.events[event] = (stream, len(self.queues[stream]))
        return event

    def wait(self, stream: int, event: int) -> None:
        on, count = self.events[event]
        self._queue(stream, lambda: self._run_to(on, count))

    def wait_here(self, event: int) -> None:
        self._run_to(*self.events[event])

    def forget(self, event: int) -> None:
        del self.events[event]

    # -- memory ----------------------------------------------------------------------------------------------------

    def _block(self, size: int) -> int:
        block = (ctypes.c_ubyte * size)()
        address = ctypes.addressof(block)
        self.blocks[address] = block
        ctypes.memset(address, 0xAB, size)  # nobody may rely on zeros
        return address

    def allocate(self, size: int, stream: int) -> int:
        assert stream not in self.recording, "an allocation would become a part of the graph"
        free = self.free_blocks.setdefault(size, [])
        if free:
            return free.pop()
        self.allocated_bytes += size
        address = self._block(size)
        self.sizes[address] = size
        return address

    def free(self, address: int, stream: int) -> None:
        assert not self.recording, "memory is given back in the middle of a recording"
        size = self.sizes[address]

        def job() -> None:
            ctypes.memset(address, 0xCD, size)
            self.free_blocks[size].append(address)

        self._queue(stream, job)

    def allocate_host(self, size: int) -> int:
        self.host_blocks += 1
        return self._block(size)

    def free_host(self, address: int) -> None:
        self.host_blocks -= 1
        del self.blocks[address]

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        self.uploaded += size
        self._queue(stream, lambda: ctypes.memmove(target, source, size))

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        self.downloaded += size
        self._queue(stream, lambda: ctypes.memmove(target, source, size))

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self._queue(stream, lambda: ctypes.memmove(target, source, size))

    def clear(self, target: int, size: int, stream: int) -> None:
        self._queue(stream, lambda: ctypes.memset(target, 0, size))

    # -- graphs ----------------------------------------------------------------------------------------------------

    def capture(self, work: Callable[[], None], stream: int) -> Any:
        self.captures += 1
        self.recording[stream] = []
        try:
            work()
        finally:
            recorded = self.recording.pop(stream)

        def launch(on: int) -> None:
            self.launches += 1
            self.queues[on].extend(recorded)

        def close() -> None:
            self.closed_graphs += 1

        return SimpleNamespace(launch=launch, close=close)


class FakeContext:
    """An execution context over an ONNX Runtime session."""

    def __init__(self, session: Any, cuda: FakeCuda) -> None:
        self.session, self.cuda = session, cuda
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return name in [i.name for i in self.session.get_inputs()]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in [v.name for v in (*self.session.get_inputs(), *self.session.get_outputs())]

    def execute_async_v3(self, stream: int) -> bool:
        shapes, addresses = dict(self.shapes), dict(self.addresses)

        def job() -> None:
            feed = {}
            for info in self.session.get_inputs():
                dtype = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}.get(info.type, np.float32)
                size = int(np.prod(shapes[info.name])) * np.dtype(dtype).itemsize
                block = (ctypes.c_ubyte * size).from_address(addresses[info.name])
                feed[info.name] = np.frombuffer(block, dtype).reshape(shapes[info.name])
            names = [o.name for o in self.session.get_outputs()]
            for name, value in zip(names, self.session.run(names, feed), strict=True):
                ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)

        self.cuda._queue(stream, job)
        return True


class FakeTensorRt:
    """The package, as far as the engine uses it."""

    __version__ = "0"

    def __init__(self, cuda: FakeCuda) -> None:
        self.refuse_contexts = False
        package = self

        class Runtime:
            def __init__(self, logger: object) -> None: ...

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
                make = lambda: None if package.refuse_contexts else FakeContext(session, cuda)  # noqa: E731
                return SimpleNamespace(create_execution_context=make)

        class Logger:
            ERROR = 0

            def __init__(self, level: int) -> None: ...

        self.Runtime, self.Logger = Runtime, Logger
