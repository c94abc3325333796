"""The four graphs on ONNX Runtime: on the processor, on CUDA, or through its TensorRT provider.

The GPU providers are written against the documented interface and have not yet run on a GPU.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import DECODER_PARTS, Bundle
from ov2vss_runtime.engines.bundle_engine import BundleEngine, cache_folder
from ov2vss_runtime.engines.cuda import gpu_capability
from ov2vss_runtime.engines.device_blend import DeviceBlend
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.engines.plans import import_tensorrt
from ov2vss_runtime.engines.providers import (
    GPU_LIBRARIES_CURE,
    OWN_GRAPHS,
    PROVIDERS,
    load_error,
    outside_error,
    profile_options,
    require_provider,
)
from ov2vss_runtime.errors import BackendError

CRASHING_OPTIMIZERS = ["FuseFp16InitializerToFp32NodeTransformer"]
"""Optimizer of fp16 graphs on the processor that ends the process with a segmentation fault on CLIP's text tower
(onnxruntime 1.32)."""
CLASS_CHUNKS_TRIED = (6, 8, 12, 16, 32)
"""Classes per run of the decoder that are tried: what is best depends on the processor's caches. The logits are the
same bits for all of them, but not for one class alone (see :func:`chunks`)."""
CLASSES_TO_TRY_WITH = 128
"""Classes that they are tried with."""
CLASSES_IN_ONE_RUN = 16
"""Up to so many classes are one chunk."""
CLASSES_REFINED_AT_ONCE = 1024
"""Classes that are refined at once."""
CLASSES_IN_A_GPU_RUN = 32
"""Classes per run on a GPU; their upsampled logits exist there for a moment."""
WORD_LISTS_ON_GPU = 8
"""Embeddings of so many vocabularies stay on a GPU."""


class OrtEngine(DeviceBlend, BundleEngine):
    """Runs a bundle on ONNX Runtime.

    Every value that one graph gives to another, states and contexts included, stays an OrtValue on the device. On a
    GPU only the frame goes up and the label map comes down (:meth:`labels`); on the processor nothing is copied.

    Args:
        provider: a key of :data:`PROVIDERS`.
        precision: what it computes in, if that is not the variant's: ``tf32`` on a GPU.
        device: number of the GPU.
        replace: serialized graphs to use in the place of files, by name (an export tries candidates with it).
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str = "fp32",
        threads: int | None = None,
        provider: str = "cpu",
        replace: dict[str, bytes] | None = None,
        precision: str | None = None,
        device: int = 0,
    ) -> None:
        super().__init__(bundle, variant, threads, precision)
        self._number = device
        self._ort, self._replace = require_provider(provider), replace or {}
        self._provider = provider
        self.rounds_as_exported = provider == "cpu"
        self._disabled = CRASHING_OPTIMIZERS if provider == "cpu" and self.precision == "fp16" else None
        self._device = "cpu" if provider == "cpu" else "cuda"
        # On a GPU the label map is made there too; on a processor the kernel is faster.
        on_device = self._device != "cpu"
        self.can = replace_field(self.can, device_labels=on_device, device_blend=on_device)
        self._blank: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._words: OrderedDict[int, tuple[npt.NDArray[np.float32], list[tuple[slice, Any]]]] = OrderedDict()
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        # Graphs of several streams at once would fight for the same cores: one runs at a time, on all of them.
        self._turn = threading.Lock()
        self._chunk: int | None = None
        self._parts = provider == "cpu" and self.wiring.refinement is not None
        step = () if self.wiring.step is None else ("stcf_step",)
        for graph in ("backbone", *step, *(DECODER_PARTS if self._parts else ("decoder",))):
            self._session(graph)

    def _session(self, graph: str) -> Any:
        """Session of a graph; the text graph's is made when words are first typed."""
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._load(graph)
            return self._sessions[graph]

    def _load(self, graph: str) -> Any:
        path = OWN_GRAPHS[graph] if graph in OWN_GRAPHS else self.bundle.graph_file(self.variant, graph)
        # Graphs of the runtime have no fixed shape: a job for CUDA, not for TensorRT.
        chosen = PROVIDERS["cuda" if graph in OWN_GRAPHS and self._provider == "tensorrt" else self._provider]
        content: Path | bytes = path
        weights: dict[str, bytes] = {}
        if graph in self._replace:
            content = self._replace[graph]
        elif graph not in OWN_GRAPHS:
            content = self.bundle.graph(self.variant, graph)
            weights = self.bundle.weights(self.variant, graph)
            if weights and self._provider == "tensorrt":
                raise outside_error(path, "onnxruntime:tensorrt")
        try:
            session = self.open_session(content, self.providers(graph), weights=weights)
        except Exception as error:
            raise load_error(path, self._ort.__version__, error) from None
        wanted = chosen[0]
        if wanted not in session.get_providers():
            raise BackendError(
                f"onnxruntime could not start {wanted} and would run on the processor", GPU_LIBRARIES_CURE
            )
        return session

    def providers(self, graph: str) -> list[tuple[str, dict[str, str]]]:
        """Providers of a graph with their options, the first choice first."""
        name = "cuda" if graph in OWN_GRAPHS and self._provider == "tensorrt" else self._provider
        return [(provider, self._options(provider, graph)) for provider in PROVIDERS[name]]

    def open_session(
        self,
        graph: Path | bytes,
        providers: Sequence[tuple[str, dict[str, str]]] = (),
        options: Any = None,
        weights: Mapping[str, bytes] | None = None,
    ) -> Any:
        """A session over any graph, set up like the engine's own (on the processor, without ``providers``).

        Args:
            graph: a file, or its content.
            providers: see :meth:`providers`.
            options: of onnxruntime, to be completed.
            weights: contents of the files in which the graph keeps weights outside of itself, by name.
        """
        ort = self._ort
        options = options or ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle pools of the other sessions must not spin beside the one that works.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if weights:
            options.add_external_initializers_from_files_in_memory(
                list(weights), list(weights.values()), [len(content) for content in weights.values()]
            )
        return ort.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph),
            options,
            providers=[*providers] or ["CPUExecutionProvider"],  # type: ignore[list-item]  # both forms are taken
            disabled_optimizers=self._disabled,
        )

    def _options(self, provider: str, graph: str) -> dict[str, str]:
        if provider == "CPUExecutionProvider":
            return {}
        options = {"device_id": str(self._number)}
        if provider == "CUDAExecutionProvider":
            # On by default there, and then fp32 would miss its own gates.
            options["use_tf32"] = str(int(self.precision == "tf32"))
        if provider == "TensorrtExecutionProvider":
            info = self.bundle.manifest.variants[self.variant].graphs[graph]
            version = import_tensorrt("tensorrt").__version__
            key = f"{info.sha256[:16]}-{version}-{gpu_capability(self._number)}-{self.precision}"
            folder = cache_folder("onnxruntime-tensorrt") / key
            folder.mkdir(parents=True, exist_ok=True)
            options |= {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(folder),
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(folder.parent),
                # Without any of its precision switches the network is strongly typed: fp16 and int8 stand in the graph,
                # and what is float32 there, norms and similarities, stays so.
            }
            options |= profile_options(info.inputs, graph)
        return options

    def _run(self, graph: str, feed: dict[str, Any]) -> dict[str, Any]:
        return self.run_session(self._session(graph), feed)

    def run_session(self, session: Any, feed: dict[str, Any]) -> dict[str, Any]:
        """All outputs of a session by name; OrtValues on the device go in and come out."""
        binding = session.io_binding()
        names = [output.name for output in session.get_outputs()]
        for name, value in feed.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, self._device, self._number)
        with self._turn:
            session.run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """An OrtValue on the device; on the processor it shares the array's memory."""
        return self._ort.OrtValue.ortvalue_from_numpy(array, self._device, self._number)

    def download(self, value: Any) -> npt.NDArray[Any]:
        return value.numpy()

    def labels(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label map ``[H, W]`` made on the device, chunk by chunk with a running argmax; nothing but it comes down.

        The same as :func:`ov2vss_runtime.stream.label_map.label_map` of :meth:`decode`, up to rounding at ties.
        """
        best, labels = self._blank_of(size)
        decoder, merge = self._session("decoder"), self._session("label_map")
        shared = self.given(self.wiring.decoder, features, guidance)
        bytes_only = len(embeddings) <= 254
        parts = self._uploaded(embeddings)
        for number, (part, words) in enumerate(parts):
            binding = decoder.io_binding()
            for name, value in shared.items():
                binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_input(self.wiring.words, words)
            binding.bind_output(self.wiring.logits, self._device, self._number)
            decoder.run_with_iobinding(binding)
            logits = binding.get_outputs()[0]
            binding = merge.io_binding()
            for name, value in (("logits", logits), ("best_in", best), ("labels_in", labels)):
                binding.bind_ortvalue_input(name, value)
            binding.bind_cpu_input("size", np.asarray(size, np.int64))
            binding.bind_cpu_input("offset", np.asarray(part.start, np.int64))
            if number == len(parts) - 1:
                binding.bind_output("labels_byte" if bytes_only else "labels", "cpu", 0)
                merge.run_with_iobinding(binding)
                found = binding.get_outputs()[0].numpy()
                return found if bytes_only else found.astype(np.uint16)
            binding.bind_output("best", self._device, self._number)
            binding.bind_output("labels", self._device, self._number)
            merge.run_with_iobinding(binding)
            best, labels = binding.get_outputs()
        raise AssertionError("a vocabulary is never empty")

    def _blank_of(self, size: tuple[int, int]) -> tuple[Any, Any]:
        """A label map of nothing yet: largest logits and labels, on the device."""
        if size not in self._blank:
            nothing = np.full(size, -np.inf, np.float32)
            self._blank[size] = (self.upload(nothing), self.upload(np.zeros(size, np.int32)))
        return self._blank[size]

    def _uploaded(self, embeddings: npt.NDArray[np.float32]) -> list[tuple[slice, Any]]:
        """Chunks of embeddings on the device; those of the last few vocabularies are still there."""
        with self._lock:
            held = self._words.get(id(embeddings))
            if held is None or held[0] is not embeddings:
                parts = chunks(len(embeddings), CLASSES_IN_A_GPU_RUN)
                held = (embeddings, [(part, self.upload(np.ascontiguousarray(embeddings[part]))) for part in parts])
                self._words[id(embeddings)] = held
            self._words.move_to_end(id(embeddings))
            while len(self._words) > WORD_LISTS_ON_GPU:
                self._words.popitem(last=False)
            return held[1]

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        if self._chunk is None and len(embeddings) > CLASSES_IN_ONE_RUN:
            self._chunk = self._fastest_chunk(features, guidance, embeddings)
        return self._decode(features, guidance, embeddings, self._chunk or CLASSES_IN_ONE_RUN)

    def _fastest_chunk(self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]) -> int:
        """Classes per run of the decoder, measured once with the first large vocabulary."""
        some = embeddings[:CLASSES_TO_TRY_WITH]
        seconds: dict[int, float] = {}
        for _ in range(3):
            for chunk in (c for c in CLASS_CHUNKS_TRIED if c < 2 * len(some)):
                began = time.perf_counter()
                self._decode(features, guidance, some, chunk)
                seconds[chunk] = min(seconds.get(chunk, np.inf), time.perf_counter() - began)
        return min(seconds, key=lambda chunk: seconds[chunk])

    def _decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32], chunk: int
    ) -> npt.NDArray[np.float32]:
        wiring = self.wiring
        graph, words, names = "decoder", wiring.words, wiring.decoder
        if self._parts and wiring.refinement is not None:
            memory = self.given(wiring.refinement[0], features, guidance)
            graph, words, names = DECODER_PARTS[1], wiring.refinement[1], wiring.head
            refined = [
                self._run(DECODER_PARTS[0], memory | {wiring.words: self.upload(embeddings[part])})[words].numpy()
                for part in chunks(len(embeddings), CLASSES_REFINED_AT_ONCE)
            ]
            embeddings = refined[0] if len(refined) == 1 else np.concatenate(refined)
        shared = self.given(names, features, guidance)
        session = self._session(graph)
        output = session.get_outputs()[0].name
        logits = np.empty((len(embeddings), *wiring.grid), np.float32)
        for rows_of in chunks(len(embeddings), chunk):
            part = logits[rows_of]
            binding = session.io_binding()
            for name, value in shared.items():
                binding.bind_ortvalue_input(name, value)
            binding.bind_cpu_input(words, embeddings[rows_of])
            binding.bind_output(output, "cpu", 0, np.float32, part.shape, part.ctypes.data)
            with self._turn:
                session.run_with_iobinding(binding)
        return logits


def chunks(count: int, size: int) -> list[slice]:
    """Slices of at most ``size`` that cover ``count`` classes evenly. No class is alone unless there is only one, since
    ONNX Runtime computes a single row by other code."""
    parts = -(-count // size)
    starts = [part * count // parts for part in range(parts)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]
