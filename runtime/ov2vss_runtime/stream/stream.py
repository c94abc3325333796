"""The state of one video and the rule by which it moves from frame to frame.

``S_s = [D_0 .. D_{n-1}]`` is the state of frame ``s``; the target frame ``t`` is fused with ``S_{t-gap}``. A ring of
``gap`` states is all the memory there is. A stream starts with ``n`` runs of the step on its first frame, each fed its
own output, and fills the ring with the last one: the same as a clip whose earlier frames are all frame 0. Models
without a state, or with another one, say so (:class:`ov2vss_runtime.engines.engine.Capabilities`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.text import class_embeddings, word_rows
from ov2vss_runtime.bundle.vocabulary import Vocabulary, Words
from ov2vss_runtime.engines.engine import BlendingEngine, Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.cuts import CutDetector
from ov2vss_runtime.stream.device_propagation import DevicePropagator
from ov2vss_runtime.stream.distant import DistantFrame, DistantPolicy, Seen
from ov2vss_runtime.stream.keyframes import due, spacing
from ov2vss_runtime.stream.label_map import Labels
from ov2vss_runtime.stream.labelling import Labeller, check_finite
from ov2vss_runtime.stream.memory import memory_of, remember
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.propagation import Propagator, Smoothing
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.stream.rows import DecodedRows
from ov2vss_runtime.timing import Stopwatch

log = logging.getLogger("ov2vss.runtime")

__all__ = ["DistantPolicy", "Result", "Stream", "StreamOptions"]


class Stream:
    """One video: feed it frames in order with :meth:`step`.

    Not thread-safe; an engine may serve many streams. Between frames, :meth:`set_vocabulary` changes the words, and
    :meth:`set_first` and :meth:`set_last` say which frames the distant one is chosen from, without touching the state;
    :meth:`restart` and :meth:`reset` forget it. :meth:`save` and :meth:`load` carry a stream to another process.

    Args:
        engine: runs the graphs.
        vocabulary: the words.
        templates: prompt templates of the model.
        gap: distance between references in frames that are stepped through. With key frames it stays so in time: the
            network looks ``max(1, round(gap / K))`` key frames back.
        distant: ``first``, or ``reservoir`` (a uniformly random past frame). For ``farthest`` the caller gives the
            last frame to :meth:`set_last`, as
            :func:`ov2vss_runtime.stream.segmenter.Segmenter.stream` does for files.
        threads: threads of the label map kernel.
        embeddings: class embeddings ``[N, D]`` of the vocabulary; None to make them.
        options: what else to do.
        smoothing: constants of the blend with the past, for ``options.smooth``; None for this program's own.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Words,
        templates: Sequence[str],
        gap: int,
        distant: DistantPolicy = "first",
        threads: int = 1,
        embeddings: npt.NDArray[np.float32] | None = None,
        options: StreamOptions | None = None,
        smoothing: Smoothing | None = None,
    ) -> None:
        if gap < 1:
            raise OV2VSSError(f"gap {gap} is not possible", "use a gap of at least 1 frame")
        self.engine, self.templates, self.gap = engine, tuple(templates), gap
        self.threads = threads
        self.options = options or StreamOptions()
        self._distant = DistantFrame(distant, self.options.seed)
        self.policy = distant
        self.stages = Stopwatch()
        if self.options.reset_on_cut and engine.can.cut is None:
            raise OV2VSSError("this model has no feature that shows shot changes", "leave reset on cut out")
        self._rows = DecodedRows(engine, self.options)
        on_device = engine.can.device_labels and not self.options.logits and not self.options.needs_confidence
        self._propagator: Propagator | None = None
        # A constant of words would have to be added to logits that are not here.
        if self.options.propagates and on_device and engine.can.device_blend and not engine.can.offset:
            self._propagator = DevicePropagator(cast(BlendingEngine, engine), smoothing, bool(self.options.smooth))
        elif self.options.propagates:
            self._propagator = Propagator(smoothing, bool(self.options.smooth), threads)
        self._on_device = on_device and (self._propagator is None or isinstance(self._propagator, DevicePropagator))
        self._labeller = Labeller(self.options, threads, self._propagator)
        self._wordings = 0
        self._irregular = self.options.keyframes == "auto"
        self.set_vocabulary(vocabulary, embeddings)
        self.reset()

    # -- what may change between frames ----------------------------------------------------------------------------

    def set_vocabulary(self, vocabulary: Words, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        """Change the words from the next frame on; the state stays."""
        words = Vocabulary.parse(vocabulary)
        rows, class_of = word_rows(words, self.synonyms, self.options.background)
        if embeddings is None:
            embeddings = self._embed(rows)
        if len(embeddings) != len(rows):
            raise OV2VSSError(f"{len(embeddings)} embeddings for {len(rows)} rows", "pass one for each, or none")
        if len(rows) == 1:
            log.warning(
                "%r is the only word, so every pixel gets it; add what else is there, or background words",
                words.names[0],
            )
        self.vocabulary = words
        self.names = words.names
        self._rows.set(embeddings, class_of, len(self.names), rows.entries)
        self._wordings += 1
        if self._propagator is not None:
            self._propagator.drop()

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """Class embeddings ``[N, D]``, a row a class unless synonyms or background words have rows of their own."""
        return self._rows.embeddings

    def _embed(self, rows: Vocabulary) -> npt.NDArray[np.float32]:
        """Embeddings of words by the text encoder."""
        return class_embeddings(self.engine.encode_text, rows, self.templates)

    @property
    def synonyms(self) -> str:
        """Whether synonyms are averaged, or the best of them counts."""
        return self.options.synonyms or "average"

    def spread(self, words: Vocabulary) -> bool:
        """Whether these words have other rows than one a class."""
        spread = self.synonyms == "max" and any(len(entry) > 1 for entry in words.entries)
        return spread or bool(self.options.background)

    def set_last(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Give the last frame of the video (RGB ``[h, w, 3]``) and its timestamp.

        With policy ``farthest`` each frame then uses the first or this one, whichever is farther away in time (the
        first on a tie). Without timestamps it is used for every frame.
        """
        if self.engine.can.distant:
            self._distant.last = Seen(self._features(frame).context, time)

    def set_first(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Give the first frame of the video, where the stream begins at a later one: a part of a long video then has
        the labels that it has in one run, from ``n * gap`` frames after its own beginning on. It is forgotten by
        :meth:`restart`."""
        if self.engine.can.distant:
            self._distant.first = Seen(self._features(frame).context, time)

    set_distant = set_last
    """The name of :meth:`set_last` until version 0.1."""

    def reset(self) -> None:
        """Forget the video: the next frame starts a new one, exactly as in a new stream."""
        self.index, self.computed = 0, 0
        self._distant.reset()
        cut = self.engine.can.cut
        self._cuts = CutDetector(cut) if self.options.reset_on_cut and cut is not None else None
        self._latest: Result | None = None
        self.restart()

    def restart(self) -> None:
        """Start the state anew with the next frame, as after a cut, a seek or a lost connection; frames count on, and
        the last frame of the video stays known."""
        self._restart_state()
        if self._propagator is not None:
            self._propagator.forget()

    def _restart_state(self) -> None:
        self._ring: deque[tuple[int, Any]] = deque(maxlen=spacing(self.gap, self.options.keyframes))
        self._distant.restart()
        self._rows.restart()

    # -- one frame -------------------------------------------------------------------------------------------------

    def step(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Label one RGB frame ``[h, w, 3]`` uint8 of any size; ``time`` in seconds."""
        small = self._resized(frame)
        if self._look(frame, small):
            return self._carry(frame, time)
        features, guidance, cut = self._advance(small, time)
        logits, confidence = None, None
        labels: Labels
        with self.stages("decoder"):
            if not self._on_device or self._rows.shift is not None:
                logits, classes = self._rows.decode(features, guidance)
                check_finite(logits, self.engine, features, guidance, self.index - 1)
            else:
                classes, embeddings = self._rows.candidates(features)
                given = (features, guidance, embeddings)
                if isinstance(self._propagator, DevicePropagator):
                    labels = self._propagator.label(*given, self._words(classes), frame.shape[:2])
                else:
                    labels = self.engine.labels(*given, frame.shape[:2])
        with self.stages("labels"):
            if logits is not None:
                logits, labels, confidence = self._labeller(logits, self._words(classes), frame.shape[:2])
            labels = self._rows.named(labels, classes)
        self._latest = Result(
            self.index - 1, time, frame, labels, self.names, confidence, logits, classes, held=False, cut=cut
        )
        return self._latest

    def _look(self, frame: npt.NDArray[np.uint8], small: npt.NDArray[np.uint8]) -> bool:
        """Follow the motion to this frame; whether the past's labels are good enough for it."""
        past, latest = self._propagator, self._latest
        if past is None:
            return False
        with self.stages("flow"):
            if latest is None or frame.shape[:2] != latest.labels.shape:
                past.forget()
            past.look(small)
        return latest is not None and not due(self.options.keyframes, self.index - latest.index, past.motion)

    def _carry(self, frame: npt.NDArray[np.uint8], time: float | None) -> Result:
        """A frame that the network does not see: the labels of the last one that it saw, moved along the flow."""
        latest = self._latest
        assert latest is not None
        assert latest.classes is not None
        with self.stages("labels"):
            logits, labels, confidence = self._labeller(None, self._words(latest.classes), frame.shape[:2])
            labels = self._rows.named(labels, latest.classes)
        self.index += 1
        return Result(
            self.index - 1,
            time,
            frame,
            labels,
            self.names,
            confidence,
            logits,
            latest.classes,
            propagated=True,
            age=self.index - 1 - latest.index,
        )

    def hold(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Give a frame the labels of the last one that :meth:`step` saw; the state does not move."""
        if self._latest is None or frame.shape[:2] != self._latest.labels.shape:
            raise OV2VSSError("there are no labels of this size to hold", "call step() first")
        self.index += 1
        age = self.index - 1 - self._latest.index
        return replace(self._latest, index=self.index - 1, time=time, frame=frame, held=True, age=age, cut=False)

    def logits(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> npt.NDArray[np.float32]:
        """Advance by one frame and return its logits ``[N, h, w]`` at the model's size (of the candidates alone, with
        ``top_classes``)."""
        features, guidance, _ = self._advance(frame, time)
        with self.stages("decoder"):
            logits, _ = self._rows.decode(features, guidance)
        check_finite(logits, self.engine, features, guidance, self.index - 1)
        return logits

    def advance(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Let the state see a frame that needs no labels: :meth:`step` without the decoder."""
        features, _, _ = self._advance(frame, time)
        self._rows.candidates(features)

    def _advance(
        self, frame: npt.NDArray[np.uint8], time: float | None, index: int | None = None
    ) -> tuple[FrameFeatures, Any, bool]:
        """Features and guidance of the next frame, and whether it begins a shot; the state has moved on. Who gives an
        ``index`` counts the frames."""
        number = self.index if index is None else index
        features = self._features(frame)
        cut = self._cuts is not None and self._cuts(self.engine.feature(features, self._cuts.feature.name))
        if cut:
            self._restart_state()
            if self._propagator is not None:
                self._propagator.drop()
        with self.stages("step"):
            context = self._distant.context(features.context, time)
            if not self._ring:
                self._warm_up(features, context, number)
            guidance, state = self.engine.step(features, context, self._reference(number))
            self._ring.append((number, state))
        if index is None:
            self.index += 1
        self.computed += 1
        return features, guidance, cut

    def _reference(self, number: int) -> Any:
        """The state that frame ``number`` is fused with: the oldest in the ring; where the network sees frames at any
        distance, the one that is nearest to ``gap`` frames back."""
        if not self._irregular:
            return self._ring[0][1]
        return min(self._ring, key=lambda seen: abs(number - self.gap - seen[0]))[1]

    def _words(self, classes: npt.NDArray[np.intp]) -> tuple[int, bytes]:
        """What the rows of logits mean: logits of other words are not blended with them."""
        return self._wordings, classes.tobytes()

    def _resized(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The frame as the network sees it."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise OV2VSSError(f"frame of shape {frame.shape} and type {frame.dtype}", "pass RGB uint8 [h, w, 3]")
        with self.stages("preprocess"):
            return np.ascontiguousarray(resize_frame(frame, self.engine.size))

    def _features(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        resized = self._resized(frame)
        with self.stages("backbone"):
            return self.engine.backbone(resized)

    def _warm_up(self, features: FrameFeatures, context: Any, number: int) -> None:
        state = self.engine.initial_state()
        for _ in range(self.engine.can.warmup):
            _, state = self.engine.step(features, context, state)
        self._ring.extend([(number - self.gap, state)] * spacing(self.gap, self.options.keyframes))

    def save(self) -> bytes:
        """All that the next frames depend on, words and options aside; :meth:`load` on another stream of the same
        bundle, engine, precision, gap and options goes on with the same bits. No pickle: a safetensors file."""
        return memory_of(self)

    def load(self, data: bytes) -> None:
        """Go on where the stream that :meth:`save` was called on stood. The words are this stream's own.

        Raises:
            OV2VSSError: these are no bytes of a stream, or of one with another model, engine, gap or policy.
        """
        remember(self, data)

    def _facts(self) -> dict[str, Any]:
        """What two streams must have in common."""
        can = self.engine.can
        facts = {"model": can.identity, "size": list(self.engine.size), "gap": self.gap, "distant": self.policy}
        return facts | {"smooth": bool(self.options.smooth), "keyframes": self.options.keyframes}
