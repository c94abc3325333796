"""The four graphs on ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle import Bundle
from ov2vss_runtime.bundle_engine import CLASS_CHUNK, DECODER_INPUTS, STEP_INPUTS, BundleEngine
from ov2vss_runtime.engine import FrameFeatures
from ov2vss_runtime.errors import BackendError, BundleError


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


class OrtEngine(BundleEngine):
    """Runs a bundle on ONNX Runtime's CPU provider.

    Values stay OrtValues between graphs, so nothing is copied but the logits of each chunk of classes into place.

    Args:
        replace: serialized graphs to use in the place of files, by name (an export tries candidates with it).
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str = "fp32",
        threads: int | None = None,
        replace: dict[str, bytes] | None = None,
    ) -> None:
        super().__init__(bundle, variant, threads)
        self._ort, self._replace = import_onnxruntime(), replace or {}
        self._sessions: dict[str, Any] = {}
        self._backbone, self._step, self._decoder = map(self._session, ("backbone", "stcf_step", "decoder"))
        self._backbone_outputs = [o.name for o in self._backbone.get_outputs()]

    def _session(self, graph: str) -> Any:
        """Session of a graph; the text graph's is made when words are first typed."""
        if graph in self._sessions:
            return self._sessions[graph]
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
            session = ort.InferenceSession(
                self._replace.get(graph, str(path)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise BundleError(
                f"{path} cannot be loaded by onnxruntime {ort.__version__} ({reason})", "export it again"
            ) from None
        self._sessions[graph] = session
        return session

    def run_graph(self, graph: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        session = self._session(graph)
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
