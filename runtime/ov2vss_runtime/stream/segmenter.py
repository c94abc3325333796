"""The entry point of the runtime: load a bundle, stream videos."""

from __future__ import annotations

import logging
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.bundle.clip_bundles import ClipOptions
from ov2vss_runtime.bundle.vocabulary import Vocabulary, Words
from ov2vss_runtime.engines.backends import load_engine
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.errors import OV2VSSError, VocabularyError
from ov2vss_runtime.stream.distant import DistantPolicy
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.pipeline import AHEAD
from ov2vss_runtime.stream.preprocess import aspect_differs, suggest_size
from ov2vss_runtime.stream.segmenter_stream import Realtime, SegmenterStream
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import Source

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
        device: int = 0,
        clip: ClipOptions | None = None,
    ) -> Segmenter:
        """Open a bundle (folder, built-in name or ``clip:MODEL/TAG``), check its hashes and load its graphs.

        Args:
            bundle: folder, name of a built-in bundle, or an open one.
            backend: one of :data:`ov2vss_runtime.engines.backends.BACKENDS`.
            precision: one of the bundle's precisions, or ``bf16`` on openvino.
            threads: processor threads; None for the physical cores that the process may use.
            device: number of the GPU, as CUDA counts those that the process sees.
            clip: how a ``clip:`` bundle is made if it is not in the cache: weights, download, recipe, aspect.

        Raises:
            OV2VSSError: a number of threads below 1, a bundle that cannot be used, an engine that is not installed.
        """
        if threads is not None and threads < 1:
            raise OV2VSSError(f"threads={threads}", "give a number of processor threads, or None for all cores")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, clip)
        return cls(load_engine(opened, backend, precision, threads, device))

    @property
    def names(self) -> list[str]:
        """The bundle's own words."""
        return self.bundle.default_vocabulary.names

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) that frames are stretched to for the network; labels have the size of the frames that come in."""
        return self.engine.size

    @property
    def precision(self) -> str:
        """What the graphs compute in: ``fp32``, ``fp16``, ``int8`` or ``bf16``."""
        return self.engine.precision

    def __repr__(self) -> str:
        h, w = self.size
        return (
            f"<Segmenter {self.bundle.manifest.name!r}: {len(self.names)} words, {h}x{w}, {self.precision}, "
            f"{type(self.engine).__name__} with {self.threads} threads>"
        )

    def close(self) -> None:
        """Give back what the engine holds on a GPU; no stream of this segmenter may go on."""
        self.engine.close()

    def embeddings(self, vocabulary: Vocabulary) -> npt.NDArray[np.float32] | None:
        """Class embeddings from the bundle's cache, or None if these words must go through the text graph."""
        return self.bundle.cached_embeddings(vocabulary, self.variant)

    def words(self, vocabulary: Words | None) -> Vocabulary:
        """The bundle's own words, a vocabulary added to it by name, or what :meth:`Vocabulary.parse` makes of it."""
        if vocabulary is None:
            return self.bundle.default_vocabulary
        added = self.bundle.manifest.vocabulary.added
        if isinstance(vocabulary, str) and vocabulary in added:
            return Vocabulary(tuple(tuple(entry) for entry in added[vocabulary]))
        if isinstance(vocabulary, str) and not any(mark in vocabulary for mark in ";,\n"):
            meant = get_close_matches(vocabulary.strip().casefold(), [name.casefold() for name in added], 1, 0.7)
            if meant and not Path(vocabulary).is_file():
                name = next(name for name in added if name.casefold() == meant[0])
                raise VocabularyError(
                    f"the bundle has no list {vocabulary!r}, but one called {name!r}",
                    f'write {name}; if it is a word, "{vocabulary};"',
                )
        return Vocabulary.parse(vocabulary)

    def stream(
        self,
        source: str | Path | Source | None = None,
        vocabulary: Words | None = None,
        gap: int | None = None,
        distant: DistantPolicy | None = None,
        embeddings: npt.NDArray[np.float32] | None = None,
        options: StreamOptions | None = None,
        realtime: Realtime | None = None,
        every: int = 1,
        limit: int | None = None,
        queue: int = AHEAD,
    ) -> SegmenterStream:
        """Start one video.

        Args:
            source: what to iterate over: a file, a folder or pattern of images, a camera's index, a URL (see
                :func:`ov2vss_runtime.video.open_source.open_source`), or an open source; None to feed frames with
                :meth:`Stream.step`.
            vocabulary: the words (see :meth:`words`); None for the bundle's own.
            gap: distance between references in frames; None for the bundle's own.
            distant: ``farthest`` (default for files), ``first`` (default otherwise) or ``reservoir``.
            embeddings: class embeddings ``[N, D]`` of the vocabulary, to share them among streams.
            options: confidence, unknown pixels, shot changes, candidates, smoothing (``smooth=None`` is on where there
                is a source and logits come to the processor: frames fed by hand are labelled exactly unless asked
                otherwise) and key frames.
            realtime: ``drop`` throws the oldest waiting frame away when the model is slower than the source (default
                for live sources; a file is then played by the clock), ``wait`` lets the source wait. ``async``: as
                ``drop``, and the network looks at the newest frame in a thread of its own, while every frame is shown
                with the last finished labels moved to it, or unknown before there are any
                (:mod:`ov2vss_runtime.stream.newest`).
            every: run the network on every k-th frame and hold its labels between.
            limit: end after so many frames.
            queue: frames that may wait between reading and labelling.
        """
        for name, value in (("limit", limit), ("queue", queue)):
            if value is not None and value < 1:
                raise OV2VSSError(f"{name}={value}", "give a number of frames, at least 1")
        if every < 1:
            raise OV2VSSError(f"every={every}", "give 1 for every frame, 2 for every second one, and so on")
        options = options or StreamOptions()
        carries = self.bundle.manifest.temporal.get("method") == "affinity"
        if options.smooth and carries:
            raise OV2VSSError(
                f"the graphs of {self.bundle.manifest.name} blend frames already", "leave smoothing out", usage=True
            )
        if options.smooth is None:
            options = replace(options, smooth=source is not None and not self.engine.can.device_labels and not carries)
        if options.keyframes != 1 and (every != 1 or realtime == "async"):
            other = f"every={every}" if every != 1 else "realtime='async'"
            raise OV2VSSError(f"keyframes={options.keyframes} and {other} exclude each other", "leave one out")
        if every != 1 and realtime == "async":
            raise OV2VSSError(f"every={every} and realtime='async' exclude each other", "leave one out")
        words = self.words(vocabulary)
        opened = open_source(source) if isinstance(source, str | Path) else source
        needed = self.engine.can.distant
        if distant is not None and not needed:
            log.warning("%s looks at every frame alone: a distant frame has no effect", self.bundle.manifest.name)
        last_frame = getattr(opened, "last_frame", None) if needed else None
        if distant == "farthest" and needed and opened is not None and last_frame is None:
            raise OV2VSSError(
                f"the last frame of {opened.name} is not known",
                "take the distant frame 'first' or 'reservoir'",
                usage=True,
            )
        policy: DistantPolicy = distant or ("farthest" if last_frame is not None else "first")
        if opened is not None and needed and distant is None and policy == "first":
            log.info("%s: its end is not known, so its first frame is the distant one", opened.name)
        stream = SegmenterStream(
            self,
            words,
            self.bundle.manifest.gap if gap is None else gap,
            policy,
            opened,
            embeddings,
            options,
            realtime=realtime or ("drop" if opened is not None and opened.live else "wait"),
            every=every,
            limit=limit,
            queue=queue,
        )
        if opened is not None:
            if options.tiles is None:
                self._check_aspect(opened)
            if policy == "farthest" and last_frame is not None:
                last = last_frame()
                stream.set_last(last.rgb, last.time)
        return stream

    def _check_aspect(self, source: Source) -> None:
        """Warn where stretching distorts the picture and another export would fit better."""
        size, width = self.engine.size, source.width * float(source.pixel_aspect)
        better = suggest_size(size, width / source.height)
        if aspect_differs((source.height, width), size) and better != f"{size[0]}x{size[1]}":
            log.warning(
                "%s is %dx%d, but the bundle works at %dx%d (height x width): frames are stretched; "
                "export with --size %s for a better fit",
                source.path or source.name,
                source.height,
                round(width),
                *size,
                better,
            )
