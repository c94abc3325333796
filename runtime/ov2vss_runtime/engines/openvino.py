"""The four graphs on OpenVINO's CPU plugin."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines.bundle_engine import BundleEngine, cache_folder
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.errors import BackendError, BundleError

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> type of the arithmetic that the graph does not quantize itself."""


CLASS_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32)
"""Numbers of classes that the decoder is compiled for, so that a fresh list of words need not compile anything: chunks
are the largest of them, and the rest is filled up to the next one. The number of heads of the text refinement is left
out: with as many classes as heads, OpenVINO 2026.4 computes wrong logits in bfloat16 on processors with AMX."""


def import_openvino() -> Any:
    """openvino, or an error with the command that installs it."""
    try:
        import openvino
    except ImportError:
        raise BackendError("openvino is not installed", "run: pip install 'ov2vss[openvino]'") from None
    return openvino


class OpenVinoEngine(BundleEngine):
    """Runs a bundle on OpenVINO. Compiled graphs are kept on disk (see :func:`cache_folder`).

    Every call has output arrays of its own, which are the next call's inputs: nothing is copied, and a state or context
    may be held for as long as it is needed.

    Args:
        precision: ``fp32``, ``bf16`` (the fp32 graphs with bfloat16 arithmetic) or ``int8``.
    """

    def __init__(
        self, bundle: Bundle, variant: str = "fp32", threads: int | None = None, precision: str = "fp32"
    ) -> None:
        super().__init__(bundle, variant, threads, precision)
        self._ov = import_openvino()
        self._core = self._ov.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("this processor has no bfloat16 arithmetic", "use --precision fp32 or int8")
        # A folder for each type of arithmetic: OpenVINO's own key leaves it out, and a graph that was compiled for
        # float32 computes nonsense in bfloat16.
        cache = cache_folder("openvino") / HINTS[precision]
        try:
            cache.mkdir(parents=True, exist_ok=True)
            self._core.set_property({"CACHE_DIR": str(cache)})
        except OSError:
            pass  # a read-only home: compile every time
        self._options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        heads = bundle.manifest.source.get("model", {}).get("heads")
        self._counts = tuple(count for count in CLASS_COUNTS if count != heads)
        self._lock = threading.Lock()
        self._compiled: dict[tuple[str, int], Any] = {}
        self._requests = threading.local()
        for graph in ("backbone", "stcf_step"):
            if graph in bundle.manifest.variants[variant].graphs:
                self._graph(graph)

    def _graph(self, graph: str, classes: int = 0) -> Any:
        """A compiled graph; the decoder, for a number of classes."""
        with self._lock:
            key = (graph, classes)
            if key not in self._compiled:
                path = self.bundle.graph_file(self.variant, graph)
                outside = bool(self.bundle.manifest.variants[self.variant].graphs[graph].external)
                laid_out = self.bundle.laid_out(self.variant, graph) if outside else nullcontext(None)
                content = None if outside else self.bundle.graph(self.variant, graph)
                try:
                    with laid_out as file:
                        model = self._core.read_model(content if file is None else file)
                        if classes:
                            width = self.bundle.manifest.vocabulary.embed_dim
                            model.reshape({self.wiring.words: [classes, width]})
                        self._compiled[key] = self._core.compile_model(model, "CPU", self._options)
                except BundleError:
                    raise
                except Exception as error:
                    reason = str(error).strip().splitlines()[-1][:200]
                    raise BundleError(
                        f"{path} cannot be compiled by openvino {self._ov.__version__} ({reason})", "export it again"
                    ) from None
            return self._compiled[key]

    def _run(
        self, graph: str, feed: dict[str, npt.NDArray[Any]], into: dict[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        classes = len(feed[self.wiring.words]) if graph == "decoder" else 0
        compiled = self._graph(graph, classes)
        requests: dict[Any, Any] = self._requests.__dict__
        if (graph, classes) not in requests:
            requests[graph, classes] = compiled.create_infer_request()
        request, outputs = requests[graph, classes], dict(into or {})
        for name, value in feed.items():
            request.set_tensor(name, self._ov.Tensor(value, shared_memory=True))
        for output in compiled.outputs:
            if output.partial_shape.is_static:
                name = output.any_name
                if name not in outputs:
                    outputs[name] = np.empty(tuple(output.shape), np.float32)
                request.set_tensor(name, self._ov.Tensor(outputs[name], shared_memory=True))
        try:
            request.infer()
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise BackendError(
                f"openvino {self._ov.__version__} failed in {graph} ({reason[:200]})",
                "use another --precision or --backend, and check the bundle with ov2vss-export --verify-only",
            ) from None
        for output in compiled.outputs:
            if output.partial_shape.is_dynamic:
                outputs[output.any_name] = request.get_tensor(output).data.copy()
        return outputs

    def upload(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array

    def download(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return value

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        filled, chunks = fill_up(embeddings, self._counts)
        wiring = self.wiring
        logits = np.empty((len(filled), *wiring.grid), np.float32)
        shared = self.given(wiring.decoder, features, guidance)
        for part in chunks:
            self._run("decoder", shared | {wiring.words: filled[part]}, {wiring.logits: logits[part]})
        return logits[: len(embeddings)]


def fill_up(
    embeddings: npt.NDArray[np.float32], counts: tuple[int, ...]
) -> tuple[npt.NDArray[np.float32], list[slice]]:
    """Embeddings with the last one repeated until every chunk has a size of ``counts`` (rising), and the chunks."""
    whole, rest = divmod(len(embeddings), counts[-1])
    last = next(size for size in counts if size >= rest) if rest else 0
    sizes = [counts[-1]] * whole + [last] * bool(rest)
    if last > rest:
        embeddings = np.concatenate([embeddings, np.repeat(embeddings[-1:], last - rest, axis=0)])
    ends = np.cumsum(sizes).tolist()
    return embeddings, [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
