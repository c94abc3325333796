"""What engines over a bundle share: its sizes, its tokenizer, and where caches go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ov2vss_runtime.bundle import Bundle
from ov2vss_runtime.errors import BundleError

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


def cache_folder(engine: str) -> Path:
    """Where an engine keeps what it compiled: ``$XDG_CACHE_HOME/ov2vss/<engine>``, or below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ov2vss" / engine


class BundleEngine:
    """Base of the engines. Stateless and thread-safe: one engine serves many streams.

    A subclass has :meth:`run_graph` and the methods of :class:`ov2vss_runtime.engine.Engine` that stream.

    Args:
        bundle: a checked bundle.
        variant: which of its variants (see :meth:`Bundle.variant`).
        threads: processor threads; None for all that the process may use.
        precision: what it computes in, if that is not the variant's.
    """

    def __init__(self, bundle: Bundle, variant: str, threads: int | None, precision: str | None = None) -> None:
        self.bundle, self.variant = bundle, variant
        self.precision = precision or bundle.manifest.variants[variant].precision
        self.threads = threads or available_threads()
        manifest = bundle.manifest
        self.size = tuple(manifest.preprocess.size)
        self.references = manifest.references
        self._tokenizer: Tokenizer | None = None

    def run_graph(self, graph: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One graph on numpy inputs, all its outputs by name."""
        raise NotImplementedError

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit embeddings ``[len(texts), D]``."""
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
