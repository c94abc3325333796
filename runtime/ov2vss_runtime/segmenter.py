"""The entry point of the runtime: load a bundle, stream videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.backends import load_engine
from ov2vss_runtime.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.bundle_engine import BundleEngine
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.preprocess import aspect_differs
from ov2vss_runtime.stream import DistantPolicy, Result, Stream
from ov2vss_runtime.video import VideoReader
from ov2vss_runtime.vocabulary import Vocabulary

log = logging.getLogger("ov2vss.runtime")


class Segmenter:
    """A bundle ready to run. It holds no state of any video and may be shared between threads.

    >>> segmenter = Segmenter.load()                                            # doctest: +SKIP
    >>> for result in segmenter.stream("video.mp4", vocabulary="road; car"):    # doctest: +SKIP
    ...     print(result.time, (result.labels == 1).mean())
    """

    def __init__(self, engine: BundleEngine) -> None:
        self.engine, self.bundle = engine, engine.bundle
        self.variant, self.threads = engine.variant, engine.threads

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle = DEFAULT_BUNDLE,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> Segmenter:
        """Open a bundle (folder or built-in name), check its hashes and load its graphs.

        Args:
            bundle: folder, name of a built-in bundle, or an open one.
            backend: one of :data:`ov2vss_runtime.backends.BACKENDS`.
            precision: one of the bundle's precisions, or ``bf16`` on openvino.
            threads: processor threads; None for all that the process may use.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(load_engine(opened, backend, precision, threads))

    def embeddings(self, vocabulary: Vocabulary) -> npt.NDArray[np.float32] | None:
        """Class embeddings from the bundle's cache, or None if these words must go through the text graph."""
        return self.bundle.cached_embeddings(vocabulary, self.variant)

    def words(self, vocabulary: Vocabulary | str | Sequence[str] | None) -> Vocabulary:
        """The bundle's own words, a vocabulary added to it by name, or what :meth:`Vocabulary.parse` makes of it."""
        if vocabulary is None:
            return self.bundle.default_vocabulary
        added = self.bundle.manifest.vocabulary.added
        if isinstance(vocabulary, str) and vocabulary in added:
            return Vocabulary(tuple(tuple(entry) for entry in added[vocabulary]))
        return Vocabulary.parse(vocabulary)

    def stream(
        self,
        source: str | Path | VideoReader | None = None,
        vocabulary: Vocabulary | str | Sequence[str] | None = None,
        gap: int | None = None,
        distant: DistantPolicy | None = None,
        embeddings: npt.NDArray[np.float32] | None = None,
    ) -> SegmenterStream:
        """Start one video.

        Args:
            source: a video file to iterate over; None to feed frames with :meth:`Stream.step`.
            vocabulary: the words (see :meth:`words`); None for the bundle's own.
            gap: distance between references in frames; None for the bundle's own.
            distant: ``farthest`` (default for files), ``first`` (default without one) or ``reservoir``.
            embeddings: class embeddings ``[N, D]`` of the vocabulary, to share them among streams.
        """
        words = self.words(vocabulary)
        reader = VideoReader(source) if isinstance(source, str | Path) else source
        policy: DistantPolicy = distant or ("farthest" if reader is not None else "first")
        stream = SegmenterStream(self, words, gap or self.bundle.manifest.gap, policy, reader, embeddings)
        if reader is not None:
            self._check_aspect(reader)
            if policy == "farthest":
                last = reader.last_frame()
                stream.set_distant(last.rgb, last.time)
        return stream

    def _check_aspect(self, reader: VideoReader) -> None:
        """Warn where stretching distorts the picture and another export would fit better."""
        size, better = self.engine.size, reader.suggest_size(self.engine.size)
        if aspect_differs((reader.height, reader.width), size) and better != f"{size[0]}x{size[1]}":
            log.warning(
                "%s is %dx%d, but the bundle works at %dx%d (height x width): frames are stretched; "
                "export with --size %s for a better fit",
                reader.path,
                reader.height,
                reader.width,
                *size,
                better,
            )


class SegmenterStream(Stream):
    """A :class:`Stream` over a bundle; iterating over it runs the source that it was opened with."""

    def __init__(
        self,
        segmenter: Segmenter,
        vocabulary: Vocabulary,
        gap: int,
        distant: DistantPolicy,
        reader: VideoReader | None,
        embeddings: npt.NDArray[np.float32] | None,
    ) -> None:
        self.segmenter, self.reader = segmenter, reader
        super().__init__(
            segmenter.engine,
            vocabulary,
            segmenter.bundle.manifest.vocabulary.templates,
            gap,
            distant,
            segmenter.threads,
            embeddings,
        )

    def set_vocabulary(
        self, vocabulary: Vocabulary | str | Sequence[str], embeddings: npt.NDArray[np.float32] | None = None
    ) -> None:
        words = self.segmenter.words(vocabulary)
        super().set_vocabulary(words, self.segmenter.embeddings(words) if embeddings is None else embeddings)

    def __iter__(self) -> Iterator[Result]:
        if self.reader is None:
            raise BackendError("this stream has no source to iterate over", "pass one to stream(), or call step(frame)")
        for frame in self.stages.timed("decode", self.reader):
            yield self.step(frame.rgb, frame.time)
