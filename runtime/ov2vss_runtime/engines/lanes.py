"""What one video stream needs of its own on a GPU: a CUDA stream, execution contexts, memory, and recorded graphs.

A lane is taken for a frame and comes back when nobody refers to that frame's features any more, so that there are as
many lanes as streams at work. Its addresses never change: the graphs of the backbone and of the step are recorded once
for each lane, however many streams there are, and nothing is allocated for a frame but the state it leaves behind.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import GraphInfo
from ov2vss_runtime.engines.cuda import DeviceArray, Memory
from ov2vss_runtime.engines.wiring import Wiring
from ov2vss_runtime.errors import BackendError


class Tensors(dict[str, DeviceArray]):
    """Arrays of a lane by name; as long as somebody holds them the lane serves no other frame."""

    lane: Lane
    hold: Hold


class Hold:
    """Comes and goes with the features of one frame."""


class Lane:
    """One stream's share of the GPU.

    Args:
        memory: of the device.
        contexts: an execution context a graph, for this lane alone.
        infos: the graphs of the variant.
        wiring: their connections.
        record: whether graphs of fixed shapes are recorded and launched as CUDA graphs.
    """

    def __init__(
        self, memory: Memory, contexts: dict[str, Any], infos: dict[str, GraphInfo], wiring: Wiring, record: bool
    ) -> None:
        cuda = memory.cuda
        self._memory, self._contexts, self._wiring, self._record = memory, contexts, wiring, record
        self.stream = cuda.create_stream()
        self._uploaded: int | None = None
        self._recordings: dict[str, Any] = {}
        self._ran: set[str] = set()

        def arrays(tensors: list[Any]) -> dict[str, DeviceArray]:
            return {t.name: memory.array(tuple(t.shape), t.dtype, self.stream) for t in tensors}

        frame, features = infos["backbone"].inputs[0], infos["backbone"].outputs
        self.frame = memory.array(tuple(int(n) for n in frame.shape), frame.dtype, self.stream)
        self._staged = memory.host(self.frame.shape, self.frame.dtype)
        self.features = arrays(features)
        self.step_inputs: dict[str, DeviceArray] = {}
        self.step_outputs: dict[str, DeviceArray] = {}
        self._addresses = {"backbone": {wiring.frame: self.frame} | self.features}
        if wiring.step is not None:
            step = infos["stcf_step"]
            self.step_inputs = arrays([t for t in step.inputs if t.name not in wiring.step])
            self.step_outputs = arrays(step.outputs)
            given = {name: self.features[name] for name in wiring.step}
            self._addresses["stcf_step"] = given | self.step_inputs | self.step_outputs
        for graph, tensors in self._addresses.items():
            for tensor in infos[graph].inputs:
                set_shape(contexts[graph], graph, tensor.name, tensors[tensor.name].shape)
            for name, array in tensors.items():
                set_address(contexts[graph], graph, name, array.address)

    def backbone(self, frame: npt.NDArray[np.uint8]) -> None:
        """Queue the upload and the backbone of one RGB frame ``[H, W, 3]``; its features are in :attr:`features`."""
        cuda = self._memory.cuda
        if self._uploaded is not None:
            # The frame before may still be on its way up from the same page-locked memory.
            cuda.wait_here(self._uploaded)
            cuda.forget(self._uploaded)
        self._staged[0] = frame
        cuda.upload(self.frame.address, self._staged.ctypes.data, self.frame.size, self.stream)
        self._uploaded = cuda.record(self.stream)
        self._run("backbone")

    def step(self, context: dict[str, DeviceArray], state: dict[str, DeviceArray]) -> None:
        """Queue the step of the frame; what it gives is in :attr:`step_outputs`."""
        for name, value in (context | state).items():
            value.copy_to(self.step_inputs[name].address, self.stream)
        self._run("stcf_step")

    def keep(self, array: DeviceArray) -> DeviceArray:
        """A copy of one of the lane's arrays that outlives the frame, for any stream."""
        kept = self._memory.array(array.shape, array.dtype, self.stream)
        array.copy_to(kept.address, self.stream)
        return kept.finished()

    def execute(self, graph: str) -> None:
        """Queue a graph as its execution context is set up now."""
        if not self._contexts[graph].execute_async_v3(self.stream):
            raise BackendError(f"TensorRT failed in {graph}", "see its messages, or use --backend onnxruntime")

    def context(self, graph: str) -> Any:
        return self._contexts[graph]

    def _run(self, graph: str) -> None:
        """The first time as it is, so that TensorRT can prepare itself; then recorded; then launched."""
        recording = self._recordings.get(graph)
        if recording is None and graph in self._ran and self._record:
            with self._memory.quiet:
                recording = self._memory.cuda.capture(lambda: self.execute(graph), self.stream)
            self._recordings[graph] = recording
        self._ran.add(graph)
        if recording is None:
            self.execute(graph)
        else:
            recording.launch(self.stream)

    def close(self) -> None:
        """Wait for its work and free what it recorded."""
        self._memory.cuda.synchronize(self.stream)
        for recording in self._recordings.values():
            recording.close()
        self._recordings.clear()
        if self._uploaded is not None:
            self._memory.cuda.forget(self._uploaded)
            self._uploaded = None
        self._contexts.clear()


def held_by(lane: Lane, give_back: Any) -> Hold:
    """Something that gives the lane back when it is gone."""
    hold = Hold()
    weakref.finalize(hold, give_back, lane).atexit = False
    return hold


def tensors(lane: Lane, hold: Hold, arrays: dict[str, DeviceArray]) -> Tensors:
    """Arrays of a lane that keep it."""
    found = Tensors(arrays)
    found.lane, found.hold = lane, hold
    return found


def set_shape(context: Any, graph: str, name: str, shape: tuple[int, ...]) -> None:
    """Tell TensorRT the shape of an input, or a BackendError where it takes none such."""
    if not context.set_input_shape(name, tuple(shape)):
        raise BackendError(
            f"TensorRT takes no {name} of shape {'x'.join(map(str, shape))} in {graph}",
            "the plan was built for other shapes; delete it to have it built again",
        )


def set_address(context: Any, graph: str, name: str, address: int) -> None:
    """Tell TensorRT where a tensor lies, or a BackendError where it has none of that name."""
    if not context.set_tensor_address(name, address):
        raise BackendError(f"the plan of {graph} has no tensor {name}", "delete the plan to have it built again")
