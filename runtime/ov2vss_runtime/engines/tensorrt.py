"""Plans of TensorRT or TensorRT-RTX on an NVIDIA GPU.

Written against the documented interface and tested with a stand-in for the GPU; not yet run on one.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines import plans
from ov2vss_runtime.engines.bundle_engine import BundleEngine, cache_folder
from ov2vss_runtime.engines.cuda import Cuda, DeviceArray, Memory, gpu_capability
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.engines.lanes import Lane, held_by, set_address, set_shape, tensors
from ov2vss_runtime.errors import BackendError

log = logging.getLogger("ov2vss.runtime")
WORD_LISTS_ON_GPU = 8
"""Embeddings of so many vocabularies stay on the GPU."""


class TensorRtEngine(BundleEngine):
    """Runs the plans of a bundle, building those that are missing or do not fit (:mod:`ov2vss_runtime.engines.plans`).

    Only the frame goes up and the logits come down; features, contexts and states stay on the GPU. Every video stream
    works in a lane of its own (:mod:`ov2vss_runtime.engines.lanes`), so that streams run side by side; the processor
    waits when logits come down.

    Args:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        precision: what it computes in, if that is not the variant's: ``tf32``.
        device: number of the GPU.
        cuda: its calls, in the place of the real ones.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str,
        threads: int | None = None,
        library: plans.Library = "tensorrt",
        precision: str | None = None,
        device: int = 0,
        cuda: Any = None,
    ) -> None:
        super().__init__(bundle, variant, threads, precision)
        trt = plans.import_tensorrt(library)
        self._trt, self._library = trt, library
        compute = gpu_capability(device)
        files = plans.ensure_plans(bundle, self.precision, library, compute)
        self._cuda = cuda or Cuda(device)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._loader = trt.Runtime(self._logger)
        hashes = {name: info.sha256 for name, info in bundle.manifest.variants[variant].graphs.items()}
        self._kernels = KernelCache(cache_folder("tensorrt-rtx-kernels"), library, compute, hashes)
        # Also where nobody calls close(): with the engine, or at the end of the program.
        self._saved = weakref.finalize(self, self._kernels.save)
        self._engines: dict[str, Any] = {}
        for graph, (path, _) in files.items():
            engine = self._loader.deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise BackendError(
                    f"{path} cannot be loaded by {library} {trt.__version__}; its messages say why",
                    f"free memory on the GPU if that is what is missing, else delete {path.parent}",
                )
            self._engines[graph] = engine
        self._memory = Memory(self._cuda)
        self._infos = bundle.manifest.variants[variant].graphs
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._words: OrderedDict[int, tuple[npt.NDArray[np.float32], DeviceArray]] = OrderedDict()
        self._lock = threading.RLock()
        self._stream = self._cuda.create_stream()
        self._text = self._context("text")

    def _context(self, graph: str) -> Any:
        """A new execution context."""
        context = self._kernels.context(self._trt, self._engines[graph], graph)
        if context is None:
            raise BackendError(
                f"{self._library} gives no execution context for {graph}; its messages say why",
                "the GPU's memory may be full: close other programs on it, or use fewer streams",
            )
        return context

    # -- arrays ----------------------------------------------------------------------------------------------------

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        with self._lock:
            staged = self._memory.host(array.shape, array.dtype)
            staged[...] = array
            target = self._memory.array(array.shape, array.dtype, self._stream)
            self._cuda.upload(target.address, staged.ctypes.data, target.size, self._stream)
            target.finished()
            self._cuda.synchronize(self._stream)  # until then the staged copy must stay as it is
        return target

    def download(self, array: DeviceArray) -> npt.NDArray[Any]:
        target = self._memory.host(array.shape, array.dtype)
        self._cuda.download(target.ctypes.data, array.address, array.size, array.stream)
        self._cuda.synchronize(array.stream)
        return target

    # -- graphs of their own ---------------------------------------------------------------------------------------

    def _run(self, graph: str, feed: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
        """A graph from arrays to new arrays, outside of any lane: the text graph, and tests of single graphs."""
        with self._lock:
            context = self._text if graph == "text" else self._context(graph)
            shapes = {name: array.shape for name, array in feed.items()}
            outputs = {
                info.name: self._memory.array(self._shape(graph, info.name, shapes), info.dtype, self._stream)
                for info in self._infos[graph].outputs
            }
            for name, shape in shapes.items():
                set_shape(context, graph, name, shape)
            for name, array in (feed | outputs).items():
                set_address(context, graph, name, array.address)
            if not context.execute_async_v3(self._stream):
                raise BackendError(f"TensorRT failed in {graph}", "see its messages, or use --backend onnxruntime")
            self._cuda.synchronize(self._stream)
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

    def encode_new(self, texts: list[str]) -> npt.NDArray[np.float32]:
        most = plans.PROFILES["text"]["B"][2]
        parts = [self.run_graph("text", self.text_feed(texts[i : i + most])) for i in range(0, len(texts), most)]
        return np.concatenate([part[self.wiring.embeddings] for part in parts])

    # -- a frame ---------------------------------------------------------------------------------------------------

    def _take(self) -> Lane:
        """A lane that serves nobody."""
        with self._lock:
            self._memory.collect()
            if self._free:
                return self._free.pop()
            graphs = [g for g in ("backbone", "stcf_step", "decoder") if g in self._engines]
            contexts: dict[str, Any] = {graph: self._context(graph) for graph in graphs}
            # TensorRT-RTX records its own CUDA graphs.
            lane = Lane(self._memory, contexts, self._infos, self.wiring, record=self._library == "tensorrt")
            self._lanes.append(lane)
            return lane

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        lane = self._take()
        hold = held_by(lane, self._free.append)
        lane.backbone(frame)
        context = {name: lane.keep(lane.features[name]) for name in self.wiring.distant}
        return FrameFeatures(context, tensors(lane, hold, lane.features))

    def initial_state(self) -> dict[str, DeviceArray]:
        state = self.bundle.manifest.state
        if state is None:
            return {}
        with self._lock:
            zeros = self._memory.array(tuple(state.shape), state.dtype, self._stream)
            self._cuda.clear(zeros.address, zeros.size, self._stream)
            return {state.input: zeros.finished()}

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Any, Any]:
        wiring, lane = self.wiring, features.payload.lane
        if wiring.step is None:
            return {}, {}
        lane.step(context, state)
        outputs = dict(lane.step_outputs)
        carried = {}
        if wiring.state is not None:
            carried = {wiring.state[0]: lane.keep(outputs.pop(wiring.state[1]))}
        return tensors(lane, features.payload.hold, outputs), carried

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        wiring, lane = self.wiring, features.payload.lane
        context = lane.context("decoder")
        for name, array in self.given(wiring.decoder, features, guidance).items():
            set_shape(context, "decoder", name, array.shape)
            set_address(context, "decoder", name, array.address)
        words = self._uploaded(embeddings)
        logits = self._memory.array((len(embeddings), *wiring.grid), np.float32, lane.stream)
        chunk = plans.PROFILES["decoder"]["N"][1]
        for start in range(0, len(embeddings), chunk):
            count = min(chunk, len(embeddings) - start)
            set_shape(context, "decoder", wiring.words, (count, words.shape[1]))
            set_address(context, "decoder", wiring.words, words.row(start))
            set_address(context, "decoder", wiring.logits, logits.row(start))
            lane.execute("decoder")
        return self.download(logits)

    def _uploaded(self, embeddings: npt.NDArray[np.float32]) -> DeviceArray:
        """Embeddings on the GPU, there already when this returns; those of the last few vocabularies stay."""
        with self._lock:
            held = self._words.get(id(embeddings))
            if held is None or held[0] is not embeddings:
                held = (embeddings, self.upload(embeddings))
                self._words[id(embeddings)] = held
            self._words.move_to_end(id(embeddings))
            if len(self._words) > WORD_LISTS_ON_GPU:
                self._words.popitem(last=False)
            return held[1]

    def close(self) -> None:
        """Wait for the GPU, keep compiled kernels for the next start, and give everything back."""
        with self._lock:
            while self._lanes:
                self._lanes.pop().close()
            self._free.clear()
            self._words.clear()
            self._saved()
            self._memory.close()


class KernelCache:
    """Kernels that TensorRT-RTX compiles on the GPU itself, kept on disk so that they are compiled once, and its own
    CUDA graphs. For TensorRT, whose plans hold finished kernels, it does nothing.

    Args:
        folder: where the files go.
        library: ``tensorrt`` or ``tensorrt-rtx``.
        compute: capability of the GPU, as ``SM89``.
        hashes: sha256 of the ONNX files, by graph.
    """

    def __init__(self, folder: Path, library: plans.Library, compute: str, hashes: dict[str, str]) -> None:
        self._folder, self._rtx, self._compute, self._hashes = folder, library == "tensorrt-rtx", compute, hashes
        self._caches: dict[str, tuple[Any, Any]] = {}

    def _file(self, graph: str) -> Path:
        return self._folder / f"{self._hashes[graph][:16]}-{self._compute}.bin"

    def context(self, trt: Any, engine: Any, graph: str) -> Any:
        """An execution context that uses the cache, or None where there is no room for one."""
        if not self._rtx:
            return engine.create_execution_context()
        if graph not in self._caches:
            config = engine.create_runtime_config()
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            cache = config.create_runtime_cache()
            try:
                known = self._file(graph).read_bytes()
            except FileNotFoundError:
                known = b""
            if known and not cache.deserialize(known):
                log.info("%s is of another release, driver or card: kernels are compiled again", self._file(graph))
            config.set_runtime_cache(cache)
            self._caches[graph] = (config, cache)
        return engine.create_execution_context(self._caches[graph][0])

    def save(self) -> None:
        """Write what was compiled."""
        for graph, (_, cache) in self._caches.items():
            data = bytes(cache.serialize())
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._file(graph).with_suffix(".part")
            part.write_bytes(data)
            part.replace(self._file(graph))
