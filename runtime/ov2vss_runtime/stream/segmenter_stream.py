"""A stream over a bundle, which reads a source, drops frames, holds labels and looks at the newest frame."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.vocabulary import Vocabulary, Words
from ov2vss_runtime.bundle.word_cache import WordCache
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.stream.distant import DistantPolicy
from ov2vss_runtime.stream.label_map import label_type
from ov2vss_runtime.stream.newest import Finding, NewestFrame
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.pipeline import AHEAD, Prefetch, limited, paced
from ov2vss_runtime.stream.propagation import Smoothing
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.stream.stream import Stream
from ov2vss_runtime.stream.tiles import TiledEngine
from ov2vss_runtime.video.source import Source, close_source

Realtime = Literal["drop", "wait", "async"]


class Opened(Protocol):
    """What a stream needs of the :class:`ov2vss_runtime.stream.segmenter.Segmenter` that makes it."""

    engine: BundleEngine
    bundle: Bundle
    variant: str
    threads: int

    def words(self, vocabulary: Words | None) -> Vocabulary: ...

    def embeddings(self, vocabulary: Vocabulary) -> npt.NDArray[np.float32] | None: ...


class SegmenterStream(Stream):
    """A :class:`Stream` over a bundle; iterating over it runs the source that it was opened with.

    Frames are read ahead in a thread of their own. Leaving the loop, or the ``with`` block, ends it.

    The arguments are those of :meth:`Segmenter.stream`, which makes it.

    Attributes:
        dropped: frames that came and were never looked at (``realtime="drop"``).
    """

    def __init__(
        self,
        segmenter: Opened,
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
        text = manifest.variants[segmenter.variant].graphs["text"].identity
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
            return Finding(*self._rows.decode(features, guidance), cut)

    def _show(self, newest: NewestFrame, frame: npt.NDArray[np.uint8], time: float | None) -> Result:
        """A frame with the newest labels there are."""
        small, size = self._resized(frame), frame.shape[:2]
        confidence = self._labeller.confidence(size)
        with self.stages("flow"):
            shown = newest.show(small, self.index, time, self._wordings, size, self.threads, confidence)
        self.index += 1
        if shown is None:
            kind = label_type(len(self.names))
            nothing = np.full(size, np.iinfo(kind).max, kind)
            none = None if confidence is None else np.zeros(size, np.float32)
            return Result(self.index - 1, time, frame, nothing, self.names, none)
        found, labels, index = shown
        self._labeller.blank(labels, confidence)
        labels = self._rows.named(labels, found.classes)
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
