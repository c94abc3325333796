"""The four graphs on ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ov2vss_runtime.bundle import Bundle
from ov2vss_runtime.engine import FrameFeatures
from ov2vss_runtime.errors import BackendError, BundleError

CLASS_CHUNK = 32
"""Classes per run of the decoder: bounded memory for any vocabulary, activations that stay in the cache."""

STEP_INPUTS = ("feat_s8", "feat_s16", "feat_s32", "tokens", "position")
DECODER_INPUTS = ("dense", "text_memory")


def available_threads() -> int:
    """Processors that this process may use: affinity and, on Linux, the cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)


def import_onnxruntime() -> Any:
    """onnxruntime, or an error with the commands that install it."""
    try:
        import onnxruntime
    except ImportError:
        raise BackendError(
            "onnxruntime is not installed",
            "run: pip install 'ov2vss[cpu]' (or 'ov2vss[gpu]' for NVIDIA GPUs; not both)",
        ) from None
    return onnxruntime


class OrtEngine:
    """Runs a bundle on ONNX Runtime's CPU provider. Stateless and thread-safe: one engine serves many streams.

    Values stay OrtValues between graphs, so nothing is copied but the logits of each chunk of classes into place.

    Args:
        bundle: a checked bundle.
        variant: which of its variants (see :meth:`Bundle.variant`).
        threads: threads per operator.
        replace: serialized graphs to use in the place of files, by name (an export tries candidates with it).
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str = "fp32",
        threads: int | None = None,
        replace: dict[str, bytes] | None = None,
    ) -> None:
        self._ort = import_onnxruntime()
        self.bundle, self.variant, self._replace = bundle, variant, replace or {}
        self.threads = threads or available_threads()
        manifest = bundle.manifest
        self.size = tuple(manifest.preprocess.size)
        self.references = manifest.references
        self._backbone, self._step, self._decoder = map(self._session, ("backbone", "stcf_step", "decoder"))
        self._text: Any = None
        self._tokenizer: Tokenizer | None = None
        self._backbone_outputs = [o.name for o in self._backbone.get_outputs()]

    def _session(self, graph: str) -> Any:
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle pools of the other sessions must not spin beside the one that works.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = self.bundle.graph_file(self.variant, graph)
        try:
            return ort.InferenceSession(
                self._replace.get(graph, str(path)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise BundleError(
                f"{path} cannot be loaded by onnxruntime {ort.__version__} ({reason})", "export it again"
            ) from None

    def run_graph(self, graph: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One graph on numpy inputs, all its outputs by name: for checks, not for streams."""
        if graph == "text":
            self._load_text()
        sessions = {"backbone": self._backbone, "stcf_step": self._step, "decoder": self._decoder, "text": self._text}
        session = sessions[graph]
        values = session.run(None, {k: np.ascontiguousarray(v) for k, v in feed.items()})
        return dict(zip((o.name for o in session.get_outputs()), values, strict=True))

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        feed = {"frame": self._ort.OrtValue.ortvalue_from_numpy(frame[None])}
        values = self._backbone.run_with_ort_values(self._backbone_outputs, feed)
        payload = dict(zip(self._backbone_outputs, values, strict=True))
        return FrameFeatures(payload.pop("context"), payload)

    def initial_state(self) -> Any:
        shape = self.bundle.manifest.state.shape
        return self._ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Any, Any]:
        feed = {name: features.payload[name] for name in STEP_INPUTS} | {"context": context, "state_in": state}
        guidance, state_out = self._step.run_with_ort_values(["guidance", "state_out"], feed)
        return guidance, state_out

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        rows, columns = guidance.shape()[1:]
        logits = np.empty((len(embeddings), rows, columns), np.float32)
        for start in range(0, len(embeddings), CLASS_CHUNK):
            part = logits[start : start + CLASS_CHUNK]
            binding = self._decoder.io_binding()
            binding.bind_ortvalue_input("guidance", guidance)
            for name in DECODER_INPUTS:
                binding.bind_ortvalue_input(name, features.payload[name])
            binding.bind_cpu_input("class_embeddings", embeddings[start : start + CLASS_CHUNK])
            binding.bind_output("logits", "cpu", 0, np.float32, part.shape, part.ctypes.data)
            self._decoder.run_with_iobinding(binding)
        return logits

    def _load_text(self) -> None:
        """The text graph and the tokenizer are loaded when words are first typed."""
        if self._text is None:
            self._text = self._session("text")
            path = self.bundle.folder / self.bundle.manifest.tokenizer.file
            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:
                raise BundleError(f"{path} is not a tokenizer ({error})", "export the bundle again") from None

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return self.run_graph("text", self.text_feed(texts))["embeddings"]

    def text_feed(self, texts: list[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Inputs of the text graph, padded to the longest text."""
        self._load_text()
        encodings = self._tokenizer.encode_batch(texts)
        feed = {
            "tokens": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        }
        wanted = {i.name for i in self._text.get_inputs()}
        return {k: v for k, v in feed.items() if k in wanted}
