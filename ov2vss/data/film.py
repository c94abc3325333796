"""Neighbouring frames of film without labels, and the motion between them.

Item ``i`` of a run is a function of ``(seed, i)`` alone, as of :class:`ov2vss.data.clips.ClipDataset`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ov2vss.data import open_files
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.stream.flow import MotionEstimator
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.video.open_source import open_source

log = logging.getLogger("ov2vss")
STRIDE = 8
"""Of the logits."""
MOST_FRAMES, MOST_BYTES = 400, 1 << 30
"""Of one film from its first frame on, and of all films together."""
TRIES = 10
"""Pairs that are drawn until one has a motion that was found."""
Picture = npt.NDArray[np.uint8]


def film_frames(name: str) -> Iterator[Iterator[Picture]]:
    """RGB frames ``[h, w, 3]`` of each film that ``name`` stands for: a video, a folder of images, or a folder in the
    VSPW layout, whose training videos of more than one frame it has."""
    if (Path(name) / "train.txt").is_file():
        videos = open_files(name, "train")
        stills = set(getattr(videos, "stills", ()))
        for video, own in enumerate(videos.videos):
            if own not in stills and videos.length(video) > 1:
                yield (videos.frame(video, t) for t in range(videos.length(video)))
    else:
        yield (frame.rgb for frame in open_source(name))


class FilmPairs(Dataset):
    """Item ``i``: ``frames`` uint8 ``[2, 3, h, w]``, a frame and the one before it; ``flow`` float32 ``[h/8, w/8, 2]``
    from the first to the second in cells, and its ``trust`` ``[h/8, w/8]``, 0 to 1.

    Args:
        films: see :func:`film_frames`.
        size: (H, W) that frames are stretched to.
        crop: (H, W) of the crop, multiples of 32.
        seed: of the run.
    """

    def __init__(self, films: Sequence[str], size: tuple[int, int], crop: tuple[int, int], seed: int) -> None:
        self.seed = seed
        self.crop = (min(crop[0], size[0]), min(crop[1], size[1]))
        self.films: list[list[Picture]] = []
        room = MOST_BYTES
        for name in films:
            for frames in film_frames(name):
                most = min(MOST_FRAMES, room // (size[0] * size[1] * 3))
                kept = [np.ascontiguousarray(resize_frame(frame, size)) for frame in islice(frames, most)]
                if len(kept) > 1:
                    self.films.append(kept)
                    room -= sum(frame.nbytes for frame in kept)
        if room < size[0] * size[1] * 3:
            log.warning("films are taken up to %d MB: what came later is left out", MOST_BYTES >> 20)
        self.pairs = [(film, t) for film, kept in enumerate(self.films) for t in range(1, len(kept))]
        if not self.pairs:
            raise OV2VSSError(f"{', '.join(films)}: no two frames that follow each other", "name videos with film=FILE")
        log.info("%d frames of %d films for the loss on neighbouring frames", len(self.pairs), len(self.films))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, sample: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, 3, sample])
        for _ in range(TRIES):
            film, t = self.pairs[int(rng.integers(len(self.pairs)))]
            now, before = self.films[film][t], self.films[film][t - 1]
            y, x = (int(rng.integers(a - b + 1)) for a, b in zip(now.shape[:2], self.crop, strict=True))
            part = slice(y, y + self.crop[0]), slice(x, x + self.crop[1])
            now, before = now[part], before[part]
            if rng.random() < 0.5:
                now, before = now[:, ::-1], before[:, ::-1]
            now, before = np.ascontiguousarray(now), np.ascontiguousarray(before)
            estimate, cells = MotionEstimator(), (self.crop[0] // STRIDE, self.crop[1] // STRIDE)
            estimate(before, None)
            motion = estimate(now, cells)
            if motion is not None and not motion.lost:
                break
        assert motion is not None, "the second of two frames has a motion"
        return {
            "frames": torch.from_numpy(np.stack((now, before)).transpose(0, 3, 1, 2).copy()),
            "flow": torch.from_numpy(motion.flow),
            "trust": torch.from_numpy(motion.trust),
        }

    def batch(self, iteration: int, count: int) -> dict[str, Tensor]:
        """``count`` items of an iteration, stacked."""
        items = [self[iteration * count + k] for k in range(count)]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}
