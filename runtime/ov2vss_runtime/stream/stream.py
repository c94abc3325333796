"""The state of one video and the rule by which it moves from frame to frame.

``S_s = [D_0 .. D_{n-1}]`` is the state of frame ``s``; the target frame ``t`` is fused with ``S_{t-gap}``. A ring of
``gap`` states is all the memory there is. A stream starts with ``n`` runs of the step on its first frame, each fed its
own output, and fills the ring with the last one: the same as a clip whose earlier frames are all frame 0.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.engines.engine import Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.outputs.overlay import Overlay
from ov2vss_runtime.stream.cuts import CutDetector
from ov2vss_runtime.stream.label_map import Labels, label_map, label_type
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.pruning import ClassPruner
from ov2vss_runtime.timing import Stopwatch

DistantPolicy = Literal["farthest", "first", "reservoir"]


@dataclass(frozen=True)
class StreamOptions:
    """What a stream does beyond labelling every frame with its best class.

    Attributes:
        confidence: also give every pixel the label's share of the softmax over the words.
        logits: give the logits too where they would stay on a GPU; on a processor they are always there.
        unknown_below: pixels whose confidence is lower are labelled unknown; 0 for none.
        reset_on_cut: restart the state where a new shot begins.
        top_classes: decode only the most likely words of a shot, so many; 0 for all.
        seed: of the policy ``reservoir``.
    """

    confidence: bool = False
    logits: bool = False
    unknown_below: float = 0.0
    reset_on_cut: bool = False
    top_classes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.unknown_below <= 1:
            raise OV2VSSError(f"unknown_below={self.unknown_below}", "give a probability, 0 to 1")
        if self.top_classes < 0:
            raise OV2VSSError(f"top_classes={self.top_classes}", "give a number of classes, or 0 for all")


@dataclass(frozen=True)
class Result:
    """What a stream says about one frame.

    Attributes:
        index: number of the frame in this stream, from 0.
        time: its timestamp in seconds, or None where the source has none.
        frame: the RGB frame as it came in, ``[h, w, 3]`` uint8.
        labels: index into ``names`` per pixel of ``frame``, ``[h, w]`` uint8 (uint16 above 254 names); unknown is the
            largest value of the type.
        names: the words.
        confidence: the label's share of the softmax, ``[h, w]`` float32 0..1; None unless asked for.
        logits: ``[K, H/8, W/8]`` float32 at the model's size, of the words ``classes``; None where the label map was
            made on a GPU and they were not asked for.
        classes: indices into ``names`` of the rows of ``logits``: all, or those that were kept as candidates.
        held: the network did not see this frame, the labels are those of an earlier one.
        cut: a new shot began here and the state was restarted.
        pts: timestamp in the source's own units, and ``name`` of the frame, where the source has them.
    """

    index: int
    time: float | None
    frame: npt.NDArray[np.uint8]
    labels: Labels
    names: list[str]
    confidence: npt.NDArray[np.float32] | None = None
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    classes: npt.NDArray[np.intp] | None = None
    held: bool = False
    cut: bool = False
    pts: int | None = None
    name: str | None = None

    @property
    def unknown(self) -> int:
        """The label of pixels that are none of the words."""
        return int(np.iinfo(self.labels.dtype).max)

    def overlay(self, alpha: float = 0.5) -> npt.NDArray[np.uint8]:
        """The frame with coloured labels and a legend, RGB ``[h, w, 3]`` uint8. For many frames keep one
        :class:`ov2vss_runtime.outputs.overlay.Overlay`, which draws its legend once."""
        return Overlay(self.names, self.frame.shape[:2], alpha).draw(self.frame, self.labels)


class Stream:
    """One video: feed it frames in order with :meth:`step`.

    Not thread-safe; an engine may serve many streams. Between frames, :meth:`set_vocabulary` changes the words and
    :meth:`set_distant` the distant frame without touching the state; :meth:`reset` forgets the video.

    Args:
        engine: runs the graphs.
        vocabulary: the words.
        templates: prompt templates of the model.
        gap: distance between references in frames that the network sees.
        distant: ``first``, or ``reservoir`` (a uniformly random past frame). For ``farthest`` the caller gives the
            last frame to :meth:`set_distant`, as
            :func:`ov2vss_runtime.stream.segmenter.Segmenter.stream` does for files.
        threads: threads of the label map kernel.
        embeddings: class embeddings ``[N, D]`` of the vocabulary; None to make them.
        options: what else to do.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary | str | Sequence[str],
        templates: Sequence[str],
        gap: int,
        distant: DistantPolicy = "first",
        threads: int = 1,
        embeddings: npt.NDArray[np.float32] | None = None,
        options: StreamOptions | None = None,
    ) -> None:
        if gap < 1:
            raise OV2VSSError(f"gap {gap} is not possible", "use a gap of at least 1 frame")
        if distant not in ("farthest", "first", "reservoir"):
            raise OV2VSSError(f"distant frame {distant!r} is not possible", "use farthest, first or reservoir")
        self.engine, self.templates, self.gap = engine, tuple(templates), gap
        self.policy: DistantPolicy = distant
        self.threads = threads
        self.options = options or StreamOptions()
        self.stages = Stopwatch()
        self._pruner = ClassPruner(self.options.top_classes) if self.options.top_classes else None
        self.set_vocabulary(vocabulary, embeddings)
        self.reset()

    # -- what may change between frames ----------------------------------------------------------------------------

    def set_vocabulary(
        self, vocabulary: Vocabulary | str | Sequence[str], embeddings: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Change the words from the next frame on; the state stays."""
        words = Vocabulary.parse(vocabulary)
        if embeddings is None:
            embeddings = class_embeddings(self.engine.encode_text, words, self.templates)
        if len(embeddings) != len(words):
            raise OV2VSSError(f"{len(embeddings)} embeddings for {len(words)} words", "pass one row per class, or none")
        self.vocabulary = words
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.names = words.names
        if self._pruner is not None:
            self._pruner.restart()

    def set_distant(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Give the last frame of the video (RGB ``[h, w, 3]``) and its timestamp.

        With policy ``farthest`` each frame then uses the first or this one, whichever is farther away in time (the
        first on a tie). Without timestamps it is used for every frame.
        """
        self._last = (self._features(frame).context, time)

    def reset(self) -> None:
        """Forget the video: the next frame starts a new one, exactly as in a new stream."""
        self.index, self.computed = 0, 0
        self._last: tuple[Any, float | None] | None = None
        self._random = random.Random(self.options.seed)
        self._cuts = CutDetector() if self.options.reset_on_cut else None
        self._latest: Result | None = None
        self.restart()

    def restart(self) -> None:
        """Start the state anew with the next frame, as after a cut, a seek or a lost connection; frames count on, and
        the last frame of the video stays known."""
        self._ring: deque[Any] = deque(maxlen=self.gap)
        self._first: tuple[Any, float | None] | None = None
        self._kept: Any = None
        self._seen = 0
        if self._pruner is not None:
            self._pruner.restart()

    # -- one frame -------------------------------------------------------------------------------------------------

    def step(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Label one RGB frame ``[h, w, 3]`` uint8 of any size; ``time`` in seconds."""
        features, guidance, cut = self._advance(frame, time)
        options, logits, confidence = self.options, None, None
        labels_on_device = getattr(self.engine, "labels", None)
        with self.stages("decoder"):
            classes, embeddings = self._candidates(features)
            if labels_on_device is None or options.logits or options.confidence or options.unknown_below > 0:
                logits = self.engine.decode(features, guidance, embeddings)
            else:
                labels = labels_on_device(features, guidance, embeddings, frame.shape[:2])
        with self.stages("labels"):
            if logits is not None:
                labels, confidence = self._labels(logits, frame.shape[:2])
            if len(classes) < len(self.names):
                known = labels < len(classes)
                unknown = np.iinfo(label_type(len(self.names))).max
                labels = np.where(known, classes[np.where(known, labels, 0)], unknown).astype(
                    label_type(len(self.names))
                )
        self._latest = Result(
            self.index - 1, time, frame, labels, self.names, confidence, logits, classes, held=False, cut=cut
        )
        return self._latest

    def hold(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Give a frame the labels of the last one that :meth:`step` saw; the state does not move."""
        if self._latest is None or frame.shape != self._latest.frame.shape:
            raise OV2VSSError("there are no labels of this size to hold", "call step() first")
        self.index += 1
        return replace(self._latest, index=self.index - 1, time=time, frame=frame, held=True, cut=False)

    def logits(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> npt.NDArray[np.float32]:
        """Advance by one frame and return its logits ``[N, H/8, W/8]`` at the model's size (of the candidates alone,
        with ``top_classes``)."""
        features, guidance, _ = self._advance(frame, time)
        with self.stages("decoder"):
            return self.engine.decode(features, guidance, self._candidates(features)[1])

    def _advance(self, frame: npt.NDArray[np.uint8], time: float | None) -> tuple[FrameFeatures, Any, bool]:
        """Features and guidance of the next frame, and whether it begins a shot; the state has moved on."""
        features = self._features(frame)
        cut = self._cuts is not None and self._cuts(self.engine.feature(features, "tokens"))
        if cut:
            self.restart()
        with self.stages("step"):
            context = self._distant_context(features.context, time)
            if not self._ring:
                self._warm_up(features, context)
            guidance, state = self.engine.step(features, context, self._ring[0])
            self._ring.append(state)
        self.index += 1
        self.computed += 1
        self._seen += 1
        return features, guidance, cut

    def _candidates(self, features: FrameFeatures) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Indices and embeddings of the classes to decode."""
        if self._pruner is None or self.options.top_classes >= len(self.names):
            return np.arange(len(self.names)), self.embeddings
        if self._pruner.due():
            self._pruner.look(self.engine.feature(features, "dense"), self.embeddings)
            self._chosen = self._pruner.active()
            self._chosen_embeddings = self.embeddings[self._chosen]
            return self._chosen, self._chosen_embeddings
        return self._pruner.active(), self._chosen_embeddings

    def _labels(
        self, logits: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> tuple[Labels, npt.NDArray[np.float32] | None]:
        """Index into the rows of ``logits``, or unknown, of every pixel; and confidence, if it is needed."""
        wanted = self.options.confidence or self.options.unknown_below > 0
        confidence = np.empty(size, np.float32) if wanted else None
        labels = label_map(logits, size, self.threads, confidence)
        if confidence is not None and self.options.unknown_below > 0:
            labels[confidence < self.options.unknown_below] = np.iinfo(labels.dtype).max
        return labels, confidence

    def _features(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
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
            if self._random.randrange(self._seen + 1) == 0:
                self._kept = own
            return self._kept
        if self._last is None or self.policy == "first":
            return self._first[0]
        first, start = self._first
        last, end = self._last
        if time is None or start is None or end is None:
            return last
        return last if end - time > time - start else first
