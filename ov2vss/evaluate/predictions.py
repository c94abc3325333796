"""Anybody's predictions, read from PNGs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ov2vss.data.images import read_ids
from ov2vss.data.source import VideoSet
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.evaluate import Predict, Protocol, tally

UNKNOWN = 65_535
Ids = Literal["one", "zero"]
"""What the first class is called in the files: 1, with 0 for unknown, as in masks here; or 0, as most methods write."""
HINT_FRAMES = 60
"""Frames, about, on which the other reading is tried."""
POOR, BETTER = 0.5, 0.1
"""The other reading is tried below this mIoU, and spoken of when it is so much better."""


def stored_predictions(folder: Path, classes: list[int], ids: Ids = "one") -> Predict:
    """Label maps from ``DIR/<video>/<frame>.png``.

    Args:
        folder: DIR.
        classes: indices of the data set's classes that are evaluated.
        ids: with ``one``, id k is class k - 1 of the data set and 0 unknown; with ``zero``, id k is class k, and what
            lies beyond the classes (255, for example) unknown.
    """
    # A class of the data set that this protocol leaves out stays a wrong answer, never a void one.
    table = np.full(65_536, UNKNOWN, np.uint16)
    for position, k in enumerate(classes):
        table[k + (ids == "one")] = position

    def predict(videos: VideoSet, video: int) -> Iterator[np.ndarray]:
        labelled = set(videos.labelled(video))
        for index in range(videos.length(video)):
            path = folder / videos.videos[video] / f"{videos.frame_name(video, index)}.png"
            if index not in labelled:
                yield np.full((1, 1), UNKNOWN, np.uint16)
            elif not path.is_file():
                raise OV2VSSError(f"prediction {path} is missing", "write one PNG per labelled frame")
            else:
                yield table[read_ids(path)]

    return predict


def shifted_hint(videos: VideoSet, setup: Protocol, folder: Path, ids: Ids, miou: float | None) -> str | None:
    """What to say where the files score far better with their ids read the other way; None where they do not."""
    if miou is not None and miou >= POOR:
        return None
    other: Ids = "zero" if ids == "one" else "one"
    labelled = sum(len(videos.labelled(v)) for v in range(len(videos.videos)))
    videos_used = max(1, round(len(videos.videos) * min(1.0, HINT_FRAMES / max(labelled, 1))))
    share = (0, max(1, len(videos.videos) // videos_used))
    scores = {}
    for reading in (ids, other):
        found = tally(videos, setup, stored_predictions(folder, setup.classes, reading), share=share)
        scores[reading] = found.confusion.scores()["miou"] or 0.0
    if scores[other] < scores[ids] + BETTER:
        return None
    first = "0" if other == "zero" else "1"
    return (
        f"these predictions seem to call their first class {first}: with --pred-ids {other} mIoU is "
        f"{scores[other]:.4f} instead of {scores[ids]:.4f} on the same frames"
    )
