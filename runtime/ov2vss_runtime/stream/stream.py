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
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.text import class_embeddings, word_rows
from ov2vss_runtime.bundle.vocabulary import Vocabulary, Words
from ov2vss_runtime.engines.engine import Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream import saved
from ov2vss_runtime.stream.cuts import CutDetector
from ov2vss_runtime.stream.distant import DistantFrame, DistantPolicy, Seen
from ov2vss_runtime.stream.keyframes import due, spacing
from ov2vss_runtime.stream.label_map import Labels, label_map, label_type
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.propagation import Propagator, Smoothing
from ov2vss_runtime.stream.pruning import ClassPruner
from ov2vss_runtime.stream.result import Result
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
        chosen = self.options.top_classes or self.options.drop_absent
        if chosen and engine.can.dense is None:
            raise OV2VSSError("this model has no feature that shows candidates", "leave top classes out")
        self._pruner: ClassPruner | None = None
        if chosen:
            self._pruner = ClassPruner(self.options.top_classes, self.options.drop_absent, engine.can.temperature)
        self._propagator: Propagator | None = None
        if self.options.propagates:
            self._propagator = Propagator(smoothing, bool(self.options.smooth), threads)
        self._wordings = 0
        self._irregular = self.options.keyframes == "auto"
        self.set_vocabulary(vocabulary, embeddings)
        self.reset()

    # -- what may change between frames ----------------------------------------------------------------------------

    def set_vocabulary(self, vocabulary: Words, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        """Change the words from the next frame on; the state stays."""
        words = Vocabulary.parse(vocabulary)
        rows, self._class_of = word_rows(words, self.synonyms, self.options.background)
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
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.names = words.names
        self._wordings += 1
        if self._propagator is not None:
            self._propagator.drop()
        if self._pruner is not None:
            self._pruner.restart()

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
        if self._pruner is not None:
            self._pruner.restart()

    # -- one frame -------------------------------------------------------------------------------------------------

    def step(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> Result:
        """Label one RGB frame ``[h, w, 3]`` uint8 of any size; ``time`` in seconds."""
        small = self._resized(frame)
        if self._look(frame, small):
            return self._carry(frame, time)
        features, guidance, cut = self._advance(small, time)
        options, logits, confidence = self.options, None, None
        labels: Labels
        on_device = self.engine.can.device_labels and self._propagator is None
        with self.stages("decoder"):
            classes, embeddings = self._candidates(features)
            if not on_device or options.logits or options.confidence or options.unknown_below > 0:
                logits = self.engine.decode(features, guidance, embeddings)
                self._check(logits, features, guidance)
            else:
                labels = self.engine.labels(features, guidance, embeddings, frame.shape[:2])
        with self.stages("labels"):
            if logits is not None:
                logits, labels, confidence = self._labels(logits, classes, frame.shape[:2])
            labels = self._named(labels, classes)
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
            logits, labels, confidence = self._labels(None, latest.classes, frame.shape[:2])
            labels = self._named(labels, latest.classes)
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
            logits = self.engine.decode(features, guidance, self._candidates(features)[1])
        self._check(logits, features, guidance)
        return logits

    def _check(self, logits: npt.NDArray[np.float32], features: FrameFeatures, guidance: Any) -> None:
        """NaN would win nowhere and be the first word everywhere. One sum is enough to see it."""
        if not np.isfinite(logits.sum()) and not np.isfinite(logits).all():
            graph = self.engine.blame(features, guidance)
            raise OV2VSSError(
                f"frame {self.index - 1}: graph {graph} gave numbers that are not finite",
                "use another --precision or --backend, and check the bundle with ov2vss-export --verify-only",
            )

    def advance(self, frame: npt.NDArray[np.uint8], time: float | None = None) -> None:
        """Let the state see a frame that needs no labels: :meth:`step` without the decoder."""
        features, _, _ = self._advance(frame, time)
        self._candidates(features)

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

    def _candidates(self, features: FrameFeatures) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Classes of the rows to decode (-1 for background), and their embeddings."""
        dense, keep = self.engine.can.dense, self.options.top_classes
        few = keep >= len(self.embeddings) and not self.options.drop_absent
        if self._pruner is None or dense is None or few:
            return self._class_of, self.embeddings
        if self._pruner.due():
            self._pruner.look(self.engine.feature(features, dense), self.embeddings)
            self._choose(self._pruner.active())
        else:
            self._pruner.active()
        return self._chosen, self._chosen_embeddings

    def _choose(self, rows: npt.NDArray[np.intp]) -> None:
        """One array of embeddings a choice: engines upload them once."""
        self._chosen, self._chosen_embeddings = self._class_of[rows], self.embeddings[rows]

    def _named(self, labels: Labels, classes: npt.NDArray[np.intp]) -> Labels:
        """Indices of decoded rows as indices into the names; background is unknown."""
        if np.array_equal(classes, np.arange(len(self.names))):
            return labels
        return of_whole_list(labels, classes, len(self.names))

    def _labels(
        self, logits: npt.NDArray[np.float32] | None, classes: npt.NDArray[np.intp], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], Labels, npt.NDArray[np.float32] | None]:
        """Logits with what they take from the past (None: all of them are the past's); index into their rows, or
        unknown, of every pixel; and confidence, if it is needed.

        This is the one place where labels are made from logits on the processor.
        """
        wanted = self.options.confidence or self.options.unknown_below > 0
        confidence = np.empty(size, np.float32) if wanted else None
        if self._propagator is None:
            assert logits is not None
            labels = label_map(logits, size, self.threads, confidence)
        elif logits is None:
            logits, labels = self._propagator.carry(size, confidence)
        else:
            logits, labels = self._propagator.blend(logits, self._words(classes), size, confidence)
        if confidence is not None and self.options.unknown_below > 0:
            labels[confidence < self.options.unknown_below] = np.iinfo(labels.dtype).max
        return logits, labels, confidence

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

    # -- to another process ----------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """All that the next frames depend on, words and options aside; :meth:`load` on another stream of the same
        bundle, engine, precision, gap and options goes on with the same bits. No pickle: a safetensors file."""
        host, distant, latest = self.engine.to_host, self._distant, self._latest
        arrays: dict[str, npt.NDArray[Any]] = {}
        for number, (_, state) in enumerate(self._ring):
            arrays |= saved.prefixed(host(state), f"ring/{number}")
        times: dict[str, float | None] = {}
        for name, seen in (("first", distant.first), ("last", distant.last), ("kept", distant.kept)):
            if seen is not None:
                arrays |= saved.prefixed(host(seen.context), f"distant/{name}")
                times[name] = seen.time
        if self._cuts is not None and self._cuts.last is not None:
            arrays["cut/tokens"] = self._cuts.last
        if self._pruner is not None:
            arrays |= saved.prefixed(self._pruner.save(), "pruner")
        if self._propagator is not None:
            arrays |= saved.prefixed(self._propagator.save(), "past")
        if latest is not None:
            for key in ("labels", "confidence", "logits", "classes"):
                if (array := getattr(latest, key)) is not None:
                    arrays[f"latest/{key}"] = array
        version, numbers, gauss = distant.random.getstate()
        facts = self._facts() | {
            "index": self.index,
            "computed": self.computed,
            "ring": [number for number, _ in self._ring],
            "times": times,
            "seen": distant.seen,
            "random": [version, list(numbers), gauss],
            "names": self.names,
            "latest": None if latest is None else [latest.index, latest.time, latest.names],
        }
        return saved.pack(facts, arrays)

    def load(self, data: bytes) -> None:
        """Go on where the stream that :meth:`save` was called on stood. The words are this stream's own.

        Raises:
            OV2VSSError: these are no bytes of a stream, or of one with another model, engine, gap or policy.
        """
        facts, arrays = saved.unpack(data)
        for name, mine in self._facts().items():
            if facts.get(name) != mine:
                raise OV2VSSError(
                    f"the saved stream has {name} {facts.get(name)}, this one {mine}",
                    "load it into a stream that was made alike",
                )
        self.reset()
        self.index, self.computed = facts["index"], facts["computed"]
        device, distant = self.engine.from_host, self._distant
        self._ring.extend((at, device(saved.part(arrays, f"ring/{k}"))) for k, at in enumerate(facts["ring"]))
        found = {k: Seen(device(saved.part(arrays, f"distant/{k}")), at) for k, at in facts["times"].items()}
        distant.first, distant.last, distant.kept = (found.get(k) for k in ("first", "last", "kept"))
        distant.seen = facts["seen"]
        version, numbers, gauss = facts["random"]
        distant.random.setstate((version, tuple(numbers), gauss))
        if self._cuts is not None:
            self._cuts.last = arrays.get("cut/tokens")
        if self._pruner is not None and facts["names"] == self.names and (kept := saved.part(arrays, "pruner")):
            self._pruner.load(kept)
            self._choose(kept["active"])
        if facts["latest"] is not None:
            index, time, names = facts["latest"]
            labels = arrays["latest/labels"]
            frame = np.broadcast_to(np.uint8(0), (*labels.shape, 3))
            confidence, logits, classes = (arrays.get(f"latest/{k}") for k in ("confidence", "logits", "classes"))
            self._latest = Result(index, time, frame, labels, names, confidence, logits, classes)
        if self._propagator is not None:
            latest = self._latest
            same = latest is not None and latest.names == self.names
            words = self._words(latest.classes) if latest and same and latest.classes is not None else None
            self._propagator.load(saved.part(arrays, "past"), words)

    def _facts(self) -> dict[str, Any]:
        """What two streams must have in common."""
        can = self.engine.can
        facts = {"model": can.identity, "size": list(self.engine.size), "gap": self.gap, "distant": self.policy}
        return facts | {"smooth": bool(self.options.smooth), "keyframes": self.options.keyframes}


def of_whole_list(labels: Labels, classes: npt.NDArray[np.intp], count: int) -> Labels:
    """Labels among the candidates ``classes`` as labels of the whole list of ``count`` words; unknown stays unknown."""
    known = labels < len(classes)
    unknown = np.iinfo(label_type(count)).max
    of_class = classes[np.where(known, labels, 0)]
    found: Labels = np.where(known & (of_class >= 0), of_class, unknown).astype(label_type(count))
    return found
