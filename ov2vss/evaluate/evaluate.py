"""Scores of a stream, or of stored predictions, on labelled videos: one pass per video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ov2vss.data.source import VideoSet
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.metrics import Confusion, group_scores, video_consistency
from ov2vss_runtime.protocol import label_table, protocol_classes
from ov2vss_runtime.stream import Stream
from ov2vss_runtime.vocabulary import Vocabulary

WINDOWS = (8, 16)

Predict = Callable[[VideoSet, int], Iterator[npt.NDArray[np.integer]]]
"""Label maps of a video's frames in order, indices into the evaluated vocabulary."""


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


def make_protocol(videos: VideoSet, name: str, wording: Vocabulary | None, unseen: list[int] | None = None) -> Protocol:
    """``all``, ``seen`` or ``unseen`` classes of a data set.

    Args:
        videos: the data set.
        name: the protocol.
        wording: line ``i`` words class ``i`` of the data set; more lines are distractors. None: the data set's names.
        unseen: indices of the classes that count as unseen; None: as the data set says.
    """
    total = len(videos.classes)
    unseen = videos.unseen if unseen is None else unseen
    classes = protocol_classes(name, total, unseen)
    wording = wording or videos.classes
    if len(wording) < total:
        raise OV2VSSError(
            f"the vocabulary has {len(wording)} entries but the data set has {total} classes",
            "line i words class i of the data set; add the missing lines",
        )
    entries = [wording.entries[k] for k in classes] + list(wording.entries[total:])
    return Protocol(name, classes, Vocabulary(tuple(entries)), [i for i, k in enumerate(classes) if k in set(unseen)])


def predict_with(make_stream: Callable[[], Stream]) -> Predict:
    """Stream every video from its first frame; the distant frame is the farther of the first and the last."""

    def predict(videos: VideoSet, video: int) -> Iterator[npt.NDArray[np.integer]]:
        stream = make_stream()
        length = videos.length(video)
        stream.set_distant(videos.frame(video, length - 1), float(length - 1))
        for index in range(length):
            yield stream.step(videos.frame(video, index), float(index)).labels

    return predict


def evaluate(videos: VideoSet, protocol: Protocol, predict: Predict, progress: bool = False) -> dict[str, object]:
    """Scores by the protocol of the design: mIoU, fwIoU, mAcc, pAcc, per class; VC8 and VC16 on dense labels.

    ``vc8`` and ``vc16`` are means over all windows of all videos whose every frame is labelled (None without any).
    """
    table = label_table(len(videos.classes), protocol.classes)
    confusion = Confusion(len(protocol.classes), len(protocol.vocabulary))
    consistency: dict[int, list[float]] = {n: [] for n in WINDOWS}
    frames = sum(videos.length(v) for v in range(len(videos.videos)))
    with tqdm(total=frames, desc="evaluate", unit="frame", disable=None if progress else True, leave=False) as bar:
        for video in range(len(videos.videos)):
            labelled = set(videos.labelled(video))
            dense = len(labelled) == videos.length(video)
            truths, predictions = [], []
            for index, prediction in enumerate(predict(videos, video)):
                if index in labelled:
                    truth = table[videos.mask(video, index)]
                    if truth.shape != prediction.shape:
                        raise OV2VSSError(
                            f"{videos.videos[video]} frame {videos.frame_name(video, index)}: the prediction is "
                            f"{prediction.shape}, the mask {truth.shape}",
                            "write predictions at the size of the masks",
                        )
                    confusion.update(truth, prediction)
                    if dense:
                        truths.append(truth)
                        predictions.append(prediction)
                bar.update()
            if dense:
                for n in WINDOWS:
                    consistency[n] += video_consistency(np.stack(truths), np.stack(predictions), n)
    scores = confusion.scores()
    per_class = scores["per_class"]
    names = [videos.classes.names[k] for k in protocol.classes]
    scores |= group_scores(per_class, protocol.unseen)
    scores["per_class"] = dict(zip(names, per_class, strict=True))
    for n, values in consistency.items():
        scores[f"vc{n}"] = float(np.mean(values)) if values else None
    return {"protocol": protocol.name, "frames": frames, "vocabulary": len(protocol.vocabulary)} | scores
