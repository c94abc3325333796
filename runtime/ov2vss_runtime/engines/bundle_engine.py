"""What engines over a bundle share: its sizes, how its graphs are wired, its tokenizer, and where caches go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path
from tokenizers import Tokenizer

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines.engine import Arrays, Capabilities, CutFeature, FrameFeatures
from ov2vss_runtime.engines.wiring import Wiring
from ov2vss_runtime.errors import BundleError
from ov2vss_runtime.processors import available_threads

REMEMBERED_TEXTS = 20_000
"""Texts whose embeddings an engine remembers: words that come back are not encoded again."""


def cache_folder(engine: str) -> Path:
    """Where an engine keeps what it compiled: in the system's place for caches, ``~/.cache/ov2vss/<engine>`` on Linux
    (or below ``$XDG_CACHE_HOME``)."""
    return user_cache_path("ov2vss", appauthor=False) / engine


def trained_words(source: dict[str, Any]) -> frozenset[str]:
    """The names in ``trained_classes``, each a class with synonyms after commas, without regard to case."""
    lines = source.get("trained_classes", ())
    return frozenset(word for line in lines for part in str(line).split(",") if (word := part.strip().casefold()))


class BundleEngine:
    """Base of the engines. Stateless and thread-safe: one engine serves many streams.

    A subclass has :meth:`upload`, :meth:`download`, :meth:`_run` and :meth:`decode`. Contexts, guidance and states are
    dictionaries of the engine's own arrays by their names in the bundle; without any they are empty.

    Args:
        bundle: a checked bundle.
        variant: which of its variants (see :meth:`Bundle.variant`).
        threads: processor threads; None for all that the process may use.
        precision: what it computes in, if that is not the variant's.
    """

    rounds_as_exported = False
    """Whether int8 gives the values of the export, which ran on onnxruntime's CPU provider."""

    def __init__(self, bundle: Bundle, variant: str, threads: int | None, precision: str | None = None) -> None:
        self.bundle, self.variant = bundle, variant
        self.precision = precision or bundle.manifest.variants[variant].precision
        self.threads = available_threads() if threads is None else threads
        manifest = bundle.manifest
        self.size: tuple[int, int] = manifest.preprocess.size
        self.wiring = wiring = Wiring.of(manifest, variant)
        cut, dense = manifest.cut, manifest.dense.output
        self.can = Capabilities(
            distant=bool(wiring.distant),
            warmup=manifest.state.warmup if manifest.state is not None else 0,
            cut=CutFeature(cut.output, cut.level, cut.threshold) if cut and cut.output in wiring.features else None,
            dense=dense if dense in wiring.features else None,
            temperature=manifest.temperature or 40.0,
            offset=manifest.class_offset,
            trained=trained_words(manifest.source),
            identity=f"{type(self).__name__} {self.precision} "
            + " ".join(info.sha256[:16] for _, info in sorted(manifest.variants[variant].graphs.items())),
        )
        self._tokenizer: Tokenizer | None = None
        self._texts: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._text_lock = threading.Lock()

    # -- what a subclass has ---------------------------------------------------------------------------------------

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """A numpy array as one of the engine's own; it may share the memory."""
        raise NotImplementedError

    def download(self, value: Any) -> npt.NDArray[Any]:
        """Inverse of :meth:`upload`."""
        raise NotImplementedError

    def _run(self, graph: str, feed: dict[str, Any]) -> dict[str, Any]:
        """One graph from the engine's own arrays to new ones of the same kind."""
        raise NotImplementedError

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Logits ``[N, h, w]`` for class embeddings ``[N, D]``."""
        raise NotImplementedError

    def labels(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label map, of engines that make it where the logits are (``can.device_labels``)."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the engine holds on a device, and keep what it compiled; no stream of it may go on."""

    # -- Engine ----------------------------------------------------------------------------------------------------

    def run_graph(self, graph: str, feed: Arrays) -> Arrays:
        """One graph on numpy inputs, all its outputs by name."""
        outputs = self._run(graph, {k: self.upload(np.ascontiguousarray(v)) for k, v in feed.items()})
        return {name: self.download(value) for name, value in outputs.items()}

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        payload = self._run("backbone", {self.wiring.frame: self.upload(frame[None])})
        return FrameFeatures({name: payload[name] for name in self.wiring.distant}, payload)

    def initial_state(self) -> dict[str, Any]:
        state = self.bundle.manifest.state
        return {} if state is None else {state.input: self.upload(np.zeros(state.shape, state.dtype))}

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        wiring = self.wiring
        if wiring.step is None:
            return {}, {}
        outputs = self._run("stcf_step", {name: features.payload[name] for name in wiring.step} | context | state)
        if wiring.state is None:
            return outputs, {}
        carried = outputs.pop(wiring.state[1])
        return outputs, {wiring.state[0]: carried}

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        return self.download(features.payload[name])

    def to_host(self, value: dict[str, Any]) -> Arrays:
        return {name: np.array(self.download(array)) for name, array in value.items()}

    def from_host(self, arrays: Arrays) -> dict[str, Any]:
        return {name: self.upload(np.array(array)) for name, array in arrays.items()}

    def blame(self, features: FrameFeatures, guidance: Any) -> str:
        for graph, outputs in (("backbone", features.payload), ("stcf_step", guidance)):
            if not all(np.isfinite(array).all() for array in self.to_host(outputs).values()):
                return graph
        return "decoder"

    def given(self, names: tuple[str, ...], features: FrameFeatures, guidance: dict[str, Any]) -> dict[str, Any]:
        """Tensors by name: what the step gave, or else the backbone."""
        return {name: guidance[name] if name in guidance else features.payload[name] for name in names}

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit embeddings ``[len(texts), D]``; the last :data:`REMEMBERED_TEXTS` texts are remembered."""
        with self._text_lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._texts]
            known = {text: self._texts[text] for text in texts if text in self._texts}
            if new:
                known |= dict(zip(new, self.encode_new(new), strict=True))
            for text in texts:
                self._texts[text] = known[text]
                self._texts.move_to_end(text)
            while len(self._texts) > REMEMBERED_TEXTS:
                self._texts.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def encode_new(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Run the text graph."""
        return self.run_graph("text", self.text_feed(texts))[self.wiring.embeddings]

    def text_feed(self, texts: list[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Inputs of the text graph, padded to the longest text."""
        if self._tokenizer is None:
            path = self.bundle.folder / self.bundle.manifest.tokenizer.file
            content = self.bundle.read(self.bundle.manifest.tokenizer)
            try:
                self._tokenizer = Tokenizer.from_buffer(content)
            except Exception as error:
                raise BundleError(f"{path} is not a tokenizer ({error})", "export the bundle again") from None
        encodings = self._tokenizer.encode_batch(texts)
        feed = {self.wiring.tokens: np.array([e.ids for e in encodings], np.int64)}
        if self.wiring.mask is not None:
            feed[self.wiring.mask] = np.array([e.attention_mask for e in encodings], np.int64)
        return feed
