"""The state of one video and the rule by which it moves from frame to frame.

``S_s = [D_0 .. D_{n-1}]`` is the state of frame ``s``; the target frame ``t`` is fused with ``S_{t-gap}``. A ring of
``gap`` states is all the memory there is. A stream starts with ``n`` runs of the step on its first frame, each fed its
own output, and fills the ring with the last one: the same as a clip whose earlier frames are all frame 0.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engine import Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.labelmap import label_map
from ov2vss_runtime.preprocess import resize_frame
from ov2vss_runtime.text import class_embeddings
from ov2vss_runtime.timing import Stopwatch
from ov2vss_runtime.vocabulary import Vocabulary

DistantPolicy = Literal["farthest", "first", "reservoir"]


@dataclass(frozen=True)
class Result:
    """What a stream says about one frame.

    Attributes:
        index: number of the frame in this stream, from 0.
        time: its timestamp in seconds, or None where the source has none.
        frame: the RGB frame as it came in, ``[h, w, 3]`` uint8.
        labels: index into ``names`` per pixel of ``frame``, ``[h, w]`` uint8 (uint16 above 254 names).
        names: the words.
    """

    index: int
    time: float | None
    frame: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    names: list[str]

    def overlay(self, alpha: float = 0.5) -> npt.NDArray[np.uint8]:
        """The frame with coloured labels and a legend, RGB ``[h, w, 3]`` uint8."""
        from ov2vss_runtime.overlay import cached_overlay

        return cached_overlay(tuple(self.names), self.frame.shape[:2], alpha).draw(self.frame, self.labels)


class Stream:
    """One video: feed it frames in order with :meth:`step`.

    Not thread-safe; an engine may serve many streams. Between frames, :meth:`set_vocabulary` changes the words and
    :meth:`set_distant` the distant frame without touching the state; :meth:`reset` forgets the video.

    Args:
        engine: runs the graphs.
        vocabulary: the words, or their embeddings as prepared by :meth:`embed`.
        templates: prompt templates of the model.
        gap: distance between references in frames.
        distant: ``first``, or ``reservoir`` (a uniformly random past frame). For ``farthest`` the caller gives the
            last frame to :meth:`set_distant`, as :func:`ov2vss_runtime.segmenter.Segmenter.stream` does for files.
        threads: threads of the label map kernel.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary,
        templates: Sequence[str],
        gap: int,
        distant: DistantPolicy = "first",
        threads: int = 1,
        embeddings: npt.NDArray[np.float32] | None = None,
        seed: int = 0,
    ) -> None:
        if gap < 1:
            raise OV2VSSError(f"gap {gap} is not possible", "use a gap of at least 1 frame")
        self.engine, self.templates, self.gap = engine, tuple(templates), gap
        self.policy: DistantPolicy = distant
        self.threads = threads
        self.stages = Stopwatch()
        self._seed = seed
        self.set_vocabulary(vocabulary, embeddings)
        self.reset()

    # -- what may change between frames ----------------------------------------------------------------------------

    def set_vocabulary(
        self, vocabulary: Vocabulary | str | Sequence[str], embeddings: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Change the words from the next frame on; the state stays."""
        self.vocabulary = Vocabulary.parse(vocabulary)
        if embeddings is None:
            embeddings = class_embeddings(self.engine.encode_text, self.vocabulary, self.templates)
        if len(embeddings) != len(self.vocabulary):
            raise OV2VSSError(
                f"{len(embeddings)} embeddings for {len(self.vocabulary)} words", "pass one row per class, or none"
            )
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.names = self.vocabulary.names

    def set_distant(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Give the last frame of the video (RGB ``[h, w, 3]``) and its timestamp.

        With policy ``farthest`` each frame then uses the first or this one, whichever is farther away in time (the
        first on a tie). Without timestamps it is used for every frame.
        """
        self._last = (self._features(frame).context, time)

    def reset(self) -> None:
        """Forget the video: the next frame starts a new one, exactly as in a new stream."""
        self._ring: deque[Any] = deque(maxlen=self.gap)
        self._first: tuple[Any, float | None] | None = None
        self._last: tuple[Any, float | None] | None = None
        self._kept: Any = None
        self._random = random.Random(self._seed)
        self.index = 0

    # -- one frame -------------------------------------------------------------------------------------------------

    def step(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Label one RGB frame ``[h, w, 3]`` uint8 of any size; ``time`` in seconds."""
        logits = self.logits(frame, time)
        with self.stages("labels"):
            labels = label_map(logits, frame.shape[:2], self.threads)
        return Result(self.index - 1, time, frame, labels, self.names)

    def logits(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> npt.NDArray[np.float32]:
        """Advance by one frame and return its logits ``[N, H/8, W/8]`` at the model's size."""
        features = self._features(frame)
        with self.stages("step"):
            context = self._distant_context(features.context, time)
            if not self._ring:
                self._warm_up(features, context)
            guidance, state = self.engine.step(features, context, self._ring[0])
            self._ring.append(state)
        with self.stages("decoder"):
            logits = self.engine.decode(features, guidance, self.embeddings)
        self.index += 1
        return logits

    def _features(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise OV2VSSError(f"frame of shape {frame.shape} and type {frame.dtype}", "pass RGB uint8 [h, w, 3]")
        with self.stages("preprocess"):
            resized = np.ascontiguousarray(resize_frame(frame, self.engine.size))
        with self.stages("backbone"):
            return self.engine.backbone(resized)

    def _warm_up(self, features: FrameFeatures, context: Any) -> None:
        state = self.engine.initial_state()
        for _ in range(self.engine.references):
            _, state = self.engine.step(features, context, state)
        self._ring.extend([state] * self.gap)

    def _distant_context(self, own: Any, time: float | None) -> Any:
        if self._first is None:
            self._first = (own, time)
        if self.policy == "reservoir":
            # Each of the frames so far is kept with equal probability.
            if self._random.randrange(self.index + 1) == 0:
                self._kept = own
            return self._kept
        if self._last is None or self.policy == "first":
            return self._first[0]
        first, start = self._first
        last, end = self._last
        if time is None or start is None or end is None:
            return last
        return last if end - time > time - start else first
