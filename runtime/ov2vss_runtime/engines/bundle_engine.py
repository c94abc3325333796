"""What engines over a bundle share: its sizes, its tokenizer, and where caches go."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.errors import BundleError
from ov2vss_runtime.processors import available_threads

TEXTS = 20_000
"""Texts whose embeddings an engine remembers: words that come back are not encoded again."""
STEP_INPUTS = ("feat_s8", "feat_s16", "feat_s32", "tokens", "position")
DECODER_INPUTS = ("dense", "text_memory")


def cache_folder(engine: str) -> Path:
    """Where an engine keeps what it compiled: ``$XDG_CACHE_HOME/ov2vss/<engine>``, or below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ov2vss" / engine


class BundleEngine:
    """Base of the engines. Stateless and thread-safe: one engine serves many streams.

    A subclass has :meth:`run_graph`, :meth:`_run` and the other methods of
    :class:`ov2vss_runtime.engines.engine.Engine`.

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
        self.threads = threads or available_threads()
        manifest = bundle.manifest
        self.size = tuple(manifest.preprocess.size)
        self.references = manifest.references
        self._tokenizer: Tokenizer | None = None
        self._texts: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._text_lock = threading.Lock()

    def run_graph(self, graph: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One graph on numpy inputs, all its outputs by name."""
        raise NotImplementedError

    def _run(self, graph: str, feed: dict[str, Any]) -> dict[str, Any]:
        """One graph from the engine's own arrays to new ones of the same kind."""
        raise NotImplementedError

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Any, Any]:
        feed = {name: features.payload[name] for name in STEP_INPUTS} | {"context": context, "state_in": state}
        outputs = self._run("stcf_step", feed)
        return outputs["guidance"], outputs["state_out"]

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        """``tokens`` or ``dense`` of a frame as a numpy array, valid until the next frame."""
        raise NotImplementedError

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit embeddings ``[len(texts), D]``; the last :data:`TEXTS` texts are remembered."""
        with self._text_lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._texts]
            known = {text: self._texts[text] for text in texts if text in self._texts}
            if new:
                known |= dict(zip(new, self.encode_new(new), strict=True))
            for text in texts:
                self._texts[text] = known[text]
                self._texts.move_to_end(text)
            while len(self._texts) > TEXTS:
                self._texts.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def encode_new(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Run the text graph."""
        return self.run_graph("text", self.text_feed(texts))["embeddings"]

    def text_feed(self, texts: list[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Inputs of the text graph, padded to the longest text."""
        if self._tokenizer is None:
            path = self.bundle.folder / self.bundle.manifest.tokenizer.file
            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:
                raise BundleError(f"{path} is not a tokenizer ({error})", "export the bundle again") from None
        encodings = self._tokenizer.encode_batch(texts)
        feed = {
            "tokens": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        }
        wanted = {t.name for t in self.bundle.manifest.variants[self.variant].graphs["text"].inputs}
        return {k: v for k, v in feed.items() if k in wanted}
