"""The entry point of the runtime: load a bundle, stream videos."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.bundle.clip_bundles import ClipOptions
from ov2vss_runtime.bundle.vocabulary import Vocabulary, Words
from ov2vss_runtime.bundle.word_cache import WordCache
from ov2vss_runtime.engines.backends import load_engine
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.errors import BackendError, OV2VSSError, VocabularyError
from ov2vss_runtime.stream.distant import DistantPolicy
from ov2vss_runtime.stream.label_map import label_type
from ov2vss_runtime.stream.newest import Finding, NewestFrame
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.pipeline import AHEAD, Prefetch, limited, paced
from ov2vss_runtime.stream.preprocess import aspect_differs, suggest_size
from ov2vss_runtime.stream.propagation import Smoothing
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.stream.stream import Stream
from ov2vss_runtime.stream.tiles import TiledEngine
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import Source, close_source

log = logging.getLogger("ov2vss.runtime")
Realtime = Literal["drop", "wait", "async"]


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


class SegmenterStream(Stream):
    """A :class:`Stream` over a bundle; iterating over it runs the source that it was opened with.

    Frames are read ahead in a thread of their own. Leaving the loop, or the ``with`` block, ends it.

    The arguments are those of :meth:`Segmenter.stream`, which makes it.

    Attributes:
        dropped: frames that came and were never looked at (``realtime="drop"``).
    """

    def __init__(
        self,
        segmenter: Segmenter,
        vocabulary: Vocabulary,
        gap: int,
        distant: DistantPolicy,
        source: Source | None,
        embeddings: npt.NDArray[np.float32] | None,
        options: StreamOptions | None = None,
        realtime: Realtime = "wait",
        every: int = 1,
        limit: int | None = None,
        queue: int = AHEAD,
    ) -> None:
        self.segmenter, self.source = segmenter, source
        self.realtime, self.every, self.limit, self.queue = realtime, every, limit, queue
        self.dropped = 0
        self._newest: NewestFrame | None = None
        self._running: weakref.ref[Generator[Result, None, None]] | None = None
        self._stopped: threading.Event | None = None
        self._interrupted = False
        self._begun = False
        tiles = options.tiles if options is not None else None
        self._tiled = TiledEngine(segmenter.engine, tiles) if tiles is not None else None
        super().__init__(
            self._tiled or segmenter.engine,
            vocabulary,
            segmenter.bundle.manifest.vocabulary.templates,
            gap,
            distant,
            segmenter.threads,
            embeddings,
            options,
            Smoothing.from_manifest(segmenter.bundle.manifest.temporal),
        )
        self._irregular |= realtime == "async"

    def __repr__(self) -> str:
        source = f" of {self.source.name!r}" if self.source is not None else ""
        return f"<SegmenterStream{source} at frame {self.index}: {len(self.names)} words, gap {self.gap}>"

    @property
    def synonyms(self) -> str:
        return self.options.synonyms or self.segmenter.bundle.manifest.vocabulary.synonyms

    def _resized(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self._tiled is not None and frame.ndim == 3 and 0 not in frame.shape and self._tiled.fit(frame.shape[:2]):
            if self._cuts is not None:
                self._cuts.last = None
            if self._propagator is not None:
                self._propagator.forget()
        return super()._resized(frame)

    def _facts(self) -> dict[str, Any]:
        facts = super()._facts()
        return facts if self._tiled is None else facts | {"size": list(self._tiled.window)}

    def load(self, data: bytes) -> None:
        super().load(data)
        if self._tiled is not None and self._latest is not None:
            self._tiled.fit(self._latest.labels.shape)

    def set_vocabulary(self, vocabulary: Words, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        words = self.segmenter.words(vocabulary)
        if self._newest is not None:
            self._newest.wait()
        if embeddings is None and not self.spread(words):
            embeddings = self.segmenter.embeddings(words)
        super().set_vocabulary(words, embeddings)

    def _embed(self, rows: Vocabulary) -> npt.NDArray[np.float32]:
        """Words of a published CLIP are kept from one run to the next: each is read in 80 sentences."""
        segmenter, manifest = self.segmenter, self.segmenter.bundle.manifest
        if "clip" not in manifest.source:
            return super()._embed(rows)
        text = manifest.variants[segmenter.variant].graphs["text"].sha256
        key = (text, manifest.tokenizer.sha256)
        cache = WordCache(segmenter.engine.encode_text, self.templates, manifest.vocabulary.embed_dim, key)
        return cache.embeddings(rows)

    def __iter__(self) -> Iterator[Result]:
        if self.source is None:
            raise BackendError("this stream has no source to iterate over", "pass one to stream(), or call step(frame)")
        if self._begun:  # from the first frame again, as a new stream
            self._end_iteration()
            self.reset()
        self._begun = True
        running = self._run(self.source)
        # Held weakly: a loop that is left drops its generator, which then ends the reader at once.
        self._running = weakref.ref(running)
        return running

    def _run(self, source: Source) -> Generator[Result, None, None]:
        drop = self.realtime != "wait"
        frames: Iterable[Any] = self.stages.timed("decode", source)
        self._stopped = stopped = threading.Event()
        if drop and not source.live:
            frames = paced(frames, stopped)
        if not drop:  # where none is dropped, no more are read than are wanted
            frames = limited(frames, self.limit)

        def wake() -> None:
            stopped.set()
            close_source(source)

        done, held = 0, 0
        with ExitStack() as opened:
            waiting = opened.enter_context(Prefetch(frames, self.queue, drop, wake))
            if self.realtime == "async":
                smoothing = Smoothing.from_manifest(self.segmenter.bundle.manifest.temporal)
                self._newest = opened.enter_context(NewestFrame(self._find, smoothing if self.options.smooth else None))
            for frame in waiting:
                if self._interrupted:
                    break
                self.dropped = waiting.dropped
                if frame.gap:
                    if self._newest is not None:
                        self._newest.forget()
                    self.restart()
                if self._newest is not None:
                    result = self._show(self._newest, frame.rgb, frame.time)
                elif held == self.every - 1 or frame.gap or not self._can_hold(frame.rgb):
                    result, held = self.step(frame.rgb, frame.time), 0
                else:
                    result, held = self.hold(frame.rgb, frame.time), held + 1
                done += 1
                yield replace(result, pts=frame.pts, name=frame.name)
                if done == self.limit:
                    break
        self._newest = None
        if self._interrupted:
            raise KeyboardInterrupt

    def _can_hold(self, frame: npt.NDArray[np.uint8]) -> bool:
        return self._latest is not None and self._latest.labels.shape == frame.shape[:2]

    def reset(self) -> None:
        """Forget the frames so far: the next one starts anew, as in a new stream. The last frame of the source, and
        with it the policy ``farthest``, stays."""
        last = self._distant.last if self.source is not None else None
        super().reset()
        self._distant.last = last

    def interrupt(self) -> None:
        """From another thread: end the iteration with KeyboardInterrupt, also where it waits for a silent source."""
        self._interrupted = True
        if self._stopped is not None:
            self._stopped.set()
        if self.source is not None:
            close_source(self.source)

    def _find(self, frame: npt.NDArray[np.uint8], index: int, time: float | None) -> Finding:
        """What the network finds in a frame; in the thread of :class:`NewestFrame`."""
        features, guidance, cut = self._advance(frame, time, index)
        with self.stages("decoder"):
            classes, embeddings = self._candidates(features)
            return Finding(self.engine.decode(features, guidance, embeddings), classes, cut)

    def _show(self, newest: NewestFrame, frame: npt.NDArray[np.uint8], time: float | None) -> Result:
        """A frame with the newest labels there are."""
        small, size = self._resized(frame), frame.shape[:2]
        wanted = self.options.confidence or self.options.unknown_below > 0
        confidence = np.empty(size, np.float32) if wanted else None
        with self.stages("flow"):
            shown = newest.show(small, self.index, time, self._wordings, size, self.threads, confidence)
        self.index += 1
        if shown is None:
            kind = label_type(len(self.names))
            nothing = np.full(size, np.iinfo(kind).max, kind)
            none = None if confidence is None else np.zeros(size, np.float32)
            return Result(self.index - 1, time, frame, nothing, self.names, none)
        found, labels, index = shown
        if confidence is not None and self.options.unknown_below > 0:
            labels[confidence < self.options.unknown_below] = np.iinfo(labels.dtype).max
        labels = self._named(labels, found.classes)
        age = self.index - 1 - index
        return Result(
            self.index - 1,
            time,
            frame,
            labels,
            self.names,
            confidence,
            found.logits,
            found.classes,
            propagated=age > 0,
            age=age,
        )

    def close(self) -> None:
        """Stop reading the source, and let go of it."""
        self._end_iteration()
        if self.source is not None:
            close_source(self.source)

    def _end_iteration(self) -> None:
        running = self._running() if self._running is not None else None
        if running is not None:
            running.close()
        self._running = None

    def __enter__(self) -> SegmenterStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
