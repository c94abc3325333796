"""Plans of TensorRT or TensorRT-RTX on an NVIDIA GPU.

Written against the documented interface and tested with a stand-in for the GPU; not yet run on one.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines import plans
from ov2vss_runtime.engines.bundle_engine import BundleEngine, cache_folder
from ov2vss_runtime.engines.cuda import Cuda, DeviceArray, Pool, host_array
from ov2vss_runtime.engines.engine import Arrays, FrameFeatures
from ov2vss_runtime.errors import BackendError

STATIC = ("backbone", "stcf_step")
"""Graphs whose shapes never change: they are launched as CUDA graphs."""
CAPTURES = 64
"""CUDA graphs that are kept. One is needed for every set of addresses, and those recur with the ring of states."""
WORD_LISTS = 8
"""Embeddings of so many vocabularies stay on the GPU."""


class TensorRtEngine(BundleEngine):
    """Runs the plans of a bundle, building those that are missing or do not fit (see :mod:`tensorrt_plans`).

    Only the frame goes up and the logits come down; states, contexts and features are arrays on the GPU that are
    handed on and never copied. Everything is queued on one CUDA stream; the processor waits for the frame to be up
    and for the logits to be down.

    Args:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        cuda: the GPU; None for the first one.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str,
        threads: int | None = None,
        library: plans.Library = "tensorrt",
        cuda: Any = None,
    ) -> None:
        super().__init__(bundle, variant, threads)
        trt = plans.import_tensorrt(library)
        self._cuda = cuda or Cuda()
        compute = plans.local_capability()
        folder = bundle.folder / "plans"
        if not os.access(folder if folder.exists() else bundle.folder, os.W_OK):
            folder = cache_folder("plans") / bundle.manifest.name
        files = plans.ensure_plans(bundle, self.precision, library, compute, folder)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._loader = trt.Runtime(self._logger)
        self._contexts: dict[str, Any] = {}
        self._engines: dict[str, Any] = {}
        for graph, (path, _) in files.items():
            engine = self._loader.deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise BackendError(f"{path} cannot be loaded by {library} {trt.__version__}", f"delete {path.parent}")
            self._engines[graph], self._contexts[graph] = engine, engine.create_execution_context()
        self._device, self._host = Pool(self._cuda.allocate), Pool(self._cuda.allocate_host)
        self._captures: OrderedDict[tuple[Any, ...], Callable[[], None] | None] = OrderedDict()
        self._words: OrderedDict[int, tuple[npt.NDArray[np.float32], DeviceArray]] = OrderedDict()
        self._lock = threading.RLock()
        self._infos = bundle.manifest.variants[variant].graphs

    # -- one graph -------------------------------------------------------------------------------------------------

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        staged = host_array(self._host, array.shape, array.dtype)
        staged[...] = array
        target = DeviceArray(self._device, array.shape, array.dtype)
        self._cuda.upload(target.address, staged.ctypes.data, target.size)
        # The staging block may be used again once the copy is through; work before it was waited for a frame ago.
        self._cuda.synchronize()
        return target

    def download(self, array: DeviceArray) -> npt.NDArray[Any]:
        target = host_array(self._host, array.shape, array.dtype)
        self._cuda.download(target.ctypes.data, array.address, array.size)
        self._cuda.synchronize()
        return target

    def _run(self, graph: str, feed: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
        """A graph from arrays to new arrays on the GPU; queued, not waited for."""
        with self._lock:
            shapes = {name: array.shape for name, array in feed.items()}
            outputs = {
                info.name: DeviceArray(self._device, self._shape(graph, info.name, shapes), info.dtype)
                for info in self._infos[graph].outputs
            }
            addresses = {name: array.address for name, array in (feed | outputs).items()}
            self._launch(graph, shapes, addresses)
        return outputs

    def _shape(self, graph: str, output: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Shape of an output; symbolic axes take their size from the inputs that have them too."""
        sizes = {
            axis: size
            for info in self._infos[graph].inputs
            for axis, size in zip(info.shape, shapes[info.name], strict=True)
            if isinstance(axis, str)
        }
        info = next(info for info in self._infos[graph].outputs if info.name == output)
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in info.shape)

    def _launch(self, graph: str, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        def enqueue() -> None:
            context = self._contexts[graph]
            for name, shape in shapes.items():
                context.set_input_shape(name, shape)
            for name, address in addresses.items():
                context.set_tensor_address(name, address)
            if not context.execute_async_v3(self._cuda.stream):
                raise BackendError(f"TensorRT failed in {graph}", "see its messages, or use --backend onnxruntime")

        if graph not in STATIC:
            enqueue()
            return
        key = (graph, *addresses.values())
        known = key in self._captures
        launch = self._captures.get(key)
        if launch is None:
            enqueue()  # the first time, also to let TensorRT prepare what cannot be captured
            launch = self._cuda.capture(enqueue) if known else None
        else:
            launch()
        self._captures[key] = launch
        self._captures.move_to_end(key)
        if len(self._captures) > CAPTURES:
            self._captures.popitem(last=False)

    # -- Engine ----------------------------------------------------------------------------------------------------

    def run_graph(self, graph: str, feed: Arrays) -> Arrays:
        with self._lock:
            return super().run_graph(graph, feed)

    def encode_new(self, texts: list[str]) -> npt.NDArray[np.float32]:
        most = plans.PROFILES["text"]["B"][2]
        parts = [self.run_graph("text", self.text_feed(texts[i : i + most])) for i in range(0, len(texts), most)]
        return np.concatenate([part[self.wiring.embeddings] for part in parts])

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        with self._lock:
            return super().backbone(frame)

    def initial_state(self) -> dict[str, DeviceArray]:
        state = self.bundle.manifest.state
        if state is None:
            return {}
        with self._lock:  # not between the calls that another thread is recording
            zeros = DeviceArray(self._device, tuple(state.shape), state.dtype)
            self._cuda.clear(zeros.address, zeros.size)
        return {state.input: zeros}

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        wiring = self.wiring
        shared = self.given(wiring.decoder, features, guidance)
        with self._lock:
            words = self._uploaded(embeddings)
            logits = DeviceArray(self._device, (len(embeddings), *wiring.grid), np.float32)
            chunk = plans.PROFILES["decoder"]["N"][1]
            for start in range(0, len(embeddings), chunk):
                count = min(chunk, len(embeddings) - start)
                shapes = {k: v.shape for k, v in shared.items()} | {wiring.words: (count, words.shape[1])}
                addresses = {k: v.address for k, v in shared.items()}
                addresses |= {wiring.words: words.row(start), wiring.logits: logits.row(start)}
                self._launch("decoder", shapes, addresses)
            return self.download(logits)

    def _uploaded(self, embeddings: npt.NDArray[np.float32]) -> DeviceArray:
        """Embeddings on the GPU; those of the last few vocabularies are still there."""
        held = self._words.get(id(embeddings))
        if held is None or held[0] is not embeddings:
            held = (embeddings, self.upload(embeddings))
            self._words[id(embeddings)] = held
        self._words.move_to_end(id(embeddings))
        if len(self._words) > WORD_LISTS:
            self._words.popitem(last=False)
        return held[1]

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        with self._lock:
            return self.download(features.payload[name])

    def to_host(self, value: dict[str, Any]) -> Arrays:
        with self._lock:
            return super().to_host(value)

    def from_host(self, arrays: Arrays) -> dict[str, Any]:
        with self._lock:
            return super().from_host(arrays)
