"""Scores of a stream, or of stored predictions, on labelled videos: one pass per video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss.data.label_tables import label_table, protocol_classes
from ov2vss.data.source import CorruptFile, VideoSet
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.metrics import Confusion, group_scores, video_consistency
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.progress import Progress
from ov2vss_runtime.stream.stream import Stream

log = logging.getLogger("ov2vss")
WINDOWS = (8, 16)
"""Lengths of VC8 and VC16."""

Labels = npt.NDArray[np.integer]
Predict = Callable[[VideoSet, int], Iterator[Labels | None]]
"""Label maps of a video's frames in order, indices into the evaluated vocabulary; None for a frame left out."""


@dataclass(frozen=True)
class Protocol:
    """What is evaluated: some classes of a data set, under some wording, perhaps beside distractors."""

    name: str
    classes: list[int]
    """Indices into the data set's classes; prediction ``k`` stands for ``classes[k]``."""
    vocabulary: Vocabulary
    """Line ``k`` words ``classes[k]``; further lines are distractors."""
    unseen: list[int]
    """Positions in ``classes`` of unseen classes."""
    background: int | None = None
    """Position in ``classes``, the last one, of the class without a word that unknown pixels count for."""

    def counted(self, prediction: Labels) -> Labels:
        """Indices into the vocabulary as positions in ``classes``, with distractors after them."""
        if self.background is None:
            return prediction
        unknown = prediction >= len(self.vocabulary)
        return np.where(unknown, self.background, prediction.astype(np.int64) + (prediction >= self.background))

    @property
    def counts(self) -> int:
        """Number of values below unknown that :meth:`counted` gives."""
        return len(self.vocabulary) + (self.background is not None)


def make_protocol(videos: VideoSet, name: str, wording: Vocabulary | None, unseen: list[int] | None = None) -> Protocol:
    """``all``, ``seen`` or ``unseen`` classes of a data set.

    Args:
        videos: the data set.
        name: the protocol.
        wording: line ``i`` words class ``i`` of the data set; more lines are distractors. None: the data set's names.
        unseen: indices of the classes that count as unseen; None: as the data set says.
    """
    total, others = len(videos.classes), videos.background
    unseen = videos.unseen if unseen is None else unseen
    classes = protocol_classes(name, total, unseen)
    worded = total if others is None else total - 1
    wording = wording or Vocabulary(videos.classes.entries[:worded])
    if len(wording) < worded:
        raise OV2VSSError(
            f"the vocabulary has {len(wording)} entries but the data set has {worded} classes",
            "line i words class i of the data set; add the missing lines",
        )
    entries = [wording.entries[k] for k in classes if k != others] + list(wording.entries[worded:])
    new = [i for i, k in enumerate(classes) if k in set(unseen)]
    background = classes.index(others) if others in classes else None
    return Protocol(name, classes, Vocabulary(tuple(entries)), new, background)


def predict_with(make_stream: Callable[[], Stream], strict: bool = False) -> Predict:
    """Stream every video from its first frame; the distant frame is the farther of the first and the last.

    A frame that cannot be read is left out of the stream, and None stands in its place; with ``strict`` it is an error.
    """

    def predict(videos: VideoSet, video: int) -> Iterator[Labels | None]:
        stream = make_stream()
        length = videos.length(video)
        for index in reversed(range(length)):
            if (frame := _read(videos.frame, video, index, strict)) is not None:
                stream.set_last(frame, float(index))
                break
        for index in range(length):
            frame = _read(videos.frame, video, index, strict)
            yield None if frame is None else stream.step(frame, float(index)).labels

    return predict


def _read(
    read: Callable[[int, int], npt.NDArray[np.uint8]], video: int, index: int, strict: bool
) -> npt.NDArray[np.uint8] | None:
    """A frame or mask; None, and a line in the log, where the file is corrupt."""
    try:
        return read(video, index)
    except CorruptFile as error:
        if strict:
            raise
        log.warning("skipped: %s", error.problem)
        return None


@dataclass
class Tally:
    """What evaluation counts. Tallies of different videos add up, so that processes can share a data set.

    ``consistency`` holds, per window of :data:`WINDOWS`, the sum of the values and their number.
    """

    confusion: Confusion
    consistency: npt.NDArray[np.float64]
    frames: int = 0
    skipped: int = 0

    def scores(self, videos: VideoSet, protocol: Protocol) -> dict[str, Any]:
        """Scores by the protocol of the design: mIoU, fwIoU, mAcc, pAcc, per class; VC8 and VC16 on dense labels.

        ``vc8`` and ``vc16`` are means over all windows of all videos whose every frame is labelled (None without any).
        """
        scores = self.confusion.scores()
        per_class = scores["per_class"]
        names = [videos.classes.names[k] for k in protocol.classes]
        scores |= group_scores(per_class, protocol.unseen)
        scores["per_class"] = dict(zip(names, per_class, strict=True))
        for n, (total, count) in zip(WINDOWS, self.consistency, strict=True):
            scores[f"vc{n}"] = float(total / count) if count else None
        head = {"protocol": protocol.name, "frames": self.frames, "skipped": self.skipped}
        return head | {"vocabulary": len(protocol.vocabulary)} | scores


def tally(
    videos: VideoSet,
    protocol: Protocol,
    predict: Predict,
    progress: bool = False,
    strict: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Tally:
    """Run and count; frames after the last labelled one of a video are not run.

    Args:
        videos, protocol, predict: what is evaluated, how, and what makes the label maps.
        progress: show a bar on a terminal, and lines of text elsewhere.
        strict: raise CorruptFile at the first image or mask that cannot be read, instead of leaving it out.
        share: ``(i, n)`` takes every n-th video from the i-th on.
    """
    table = label_table(len(videos.classes), protocol.classes)
    result = Tally(Confusion(len(protocol.classes), protocol.counts), np.zeros((len(WINDOWS), 2)))
    chosen = [v for v in range(share[0], len(videos.videos), share[1]) if videos.labelled(v)]
    lengths = {v: videos.labelled(v)[-1] + 1 for v in chosen}
    with Progress(sum(lengths.values()), "evaluate", "frame", show=progress) as bar:
        for video in chosen:
            labelled = set(videos.labelled(video))
            dense = len(labelled) == videos.length(video)
            truths, predictions = [], []
            for index, prediction in zip(range(lengths[video]), predict(videos, video), strict=False):
                bar.update()
                result.frames += 1
                mask = _read(videos.mask, video, index, strict) if index in labelled else None
                if prediction is None or (mask is None and index in labelled):
                    result.skipped += 1
                    dense = False
                elif mask is not None:
                    truth = table[mask]
                    if truth.shape != prediction.shape:
                        raise _other_size(videos, video, index, truth.shape, prediction.shape)
                    prediction = protocol.counted(prediction)
                    result.confusion.update(truth, prediction)
                    if dense:
                        truths.append(truth)
                        predictions.append(prediction)
            if dense and len({truth.shape for truth in truths}) > 1:
                log.warning("%s: its frames differ in size, so it counts for no consistency", videos.videos[video])
            elif dense:
                for row, n in zip(result.consistency, WINDOWS, strict=True):
                    values = video_consistency(np.stack(truths), np.stack(predictions), n)
                    row += sum(values), len(values)
    return result


def _other_size(
    videos: VideoSet, video: int, index: int, truth: tuple[int, ...], prediction: tuple[int, ...]
) -> OV2VSSError:
    """Whose fault it is: a mask that does not have the size of its frame, or somebody's prediction."""
    where = f"{videos.videos[video]} frame {videos.frame_name(video, index)}"
    mask = "x".join(map(str, truth))
    if videos.frame(video, index).shape[:2] == prediction:
        return OV2VSSError(
            f"{where}: its mask is {mask}, the frame {'x'.join(map(str, prediction))} (height x width)",
            "write masks at the size of the frames; ov2vss-eval --check lists them",
        )
    return OV2VSSError(
        f"{where}: the prediction is {'x'.join(map(str, prediction))}, the mask {mask} (height x width)",
        "write predictions at the size of the masks",
    )


def evaluate(
    videos: VideoSet, protocol: Protocol, predict: Predict, progress: bool = False, strict: bool = False
) -> dict[str, Any]:
    """:func:`tally` over all videos, and its :meth:`Tally.scores`."""
    return tally(videos, protocol, predict, progress, strict).scores(videos, protocol)
