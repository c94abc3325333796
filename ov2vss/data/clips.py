"""Training clips: which frames, which crop, which colours.

Sample ``i`` of a run is a function of ``(seed, i)`` alone, whatever worker makes it: that is what makes an interrupted
and resumed run equal to an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from ov2vss.data.degraded_target import worsen
from ov2vss.data.label_tables import VOID
from ov2vss.data.moving import MovingStills
from ov2vss.data.source import CorruptFile, VideoSet
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.stream.preprocess import resize_frame

FILL = 127
MAX_CORRUPT = 50
"""Samples in a row that may be corrupt before training gives up."""


@dataclass(frozen=True)
class ClipSpec:
    """How training clips are cut.

    Attributes:
        size: (H, W) that frames are stretched to before the random scale, as at run time.
        crop: (H, W) of the crop, multiples of 32.
        scale: range of the random scale.
        references, gap: n frames at distance ``gap``, clamped at the first frame.
        reverse: play clips backwards half of the time.
        photometric: draw brightness, contrast, saturation and hue for every frame.
        labelled: frames of a clip that carry a label, the target and the ones before it (the paper uses one).
        fill: RGB of pixels of hidden classes.
        moving_gap: distance of references in clips made of stills, whose frames are as near as those of a film.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    references: int = 3
    gap: int = 3
    reverse: bool = True
    flip: bool = True
    photometric: bool = True
    labelled: int = 1
    fill: tuple[int, int, int] = (124, 116, 104)
    moving_gap: int = 3


def clip_indices(target: int, references: int, gap: int) -> list[int]:
    """Frame indices of a clip, oldest first, the target last; clamped to frame 0 like a stream's warm-up.

    >>> clip_indices(4, 3, 3)
    [0, 0, 1, 4]
    """
    return [max(0, target - gap * k) for k in range(references, -1, -1)]


def distant_index(length: int, clip: list[int], rng: np.random.Generator) -> int:
    """A random frame outside the clip's span, or any frame where the video is no longer than the clip."""
    outside = [i for i in range(length) if i < clip[0] or i > clip[-1]]
    return int(rng.choice(outside)) if outside else int(rng.integers(length))


class ClipDataset(Dataset):
    """Item ``i``: ``clip`` uint8 ``[n+1, 3, h, w]``, ``distant`` uint8 ``[3, h, w]``, ``labels`` uint8 ``[h, w]``.

    With ``spec.labelled`` above one, ``labels`` is ``[labelled, h, w]``, oldest first, the target last; frames without
    a mask, and repeated frames of a clip that is clamped at the start, are void there. ``skipped`` lists files that
    were found corrupt on the way; another sample was drawn instead.

    Args:
        videos: labelled videos.
        table: look-up table [256] from raw ids to training labels.
        spec: how clips are cut.
        seed: of the run.
        single: give only the target frame (``clip`` is ``[1, 3, h, w]``, no ``distant``).
        hidden: classes whose pixels are painted over with ``spec.fill`` in every frame that has a mask.
        strict: raise CorruptFile instead of drawing another sample.
        moving: clips made of stills, which take the place of ``share`` of the samples (not with ``single``).
        share: 0 to 1.
        degraded: share of the targets that are made hard to see (not with ``single``: there is no past to look at).
    """

    def __init__(
        self,
        videos: VideoSet,
        table: npt.NDArray[np.uint8],
        spec: ClipSpec,
        seed: int,
        single: bool = False,
        hidden: Sequence[int] = (),
        strict: bool = False,
        moving: MovingStills | None = None,
        share: float = 0.0,
        degraded: float = 0.0,
    ) -> None:
        self.videos, self.table, self.spec, self.seed = videos, table, spec, seed
        self.single, self.strict = single, strict
        self.moving, self.share = moving, 0.0 if single or moving is None else share
        self.degraded = 0.0 if single else degraded
        self.targets = [(v, i) for v in range(len(videos.videos)) for i in videos.labelled(v)]
        self.hidden = np.isin(np.arange(256), [k + 1 for k in hidden]) if hidden else None
        self.crop = v2.Compose(
            [
                v2.RandomCrop(
                    spec.crop, pad_if_needed=True, fill={tv_tensors.Video: FILL, tv_tensors.Mask: VOID, "others": 0}
                ),
                v2.RandomHorizontalFlip(0.5 if spec.flip else 0.0),
            ]
        )
        self.colour = v2.RandomPhotometricDistort(p=0.5) if spec.photometric else None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, sample: int) -> dict[str, Tensor | list[str]]:
        rng = np.random.default_rng([self.seed, sample])
        skipped: list[str] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            while len(skipped) < MAX_CORRUPT:
                try:
                    return {**self._cut(rng), "skipped": skipped}
                except CorruptFile as error:
                    if self.strict:
                        raise
                    skipped.append(error.problem)
        raise OV2VSSError(f"{MAX_CORRUPT} samples in a row are corrupt, the last one: {skipped[-1]}", "check the data")

    def describe(self, sample: int) -> str:
        """Video and frame of a sample's target, for messages (of the first draw, if that one was corrupt)."""
        rng = np.random.default_rng([self.seed, sample])
        rng.integers(2**62)
        videos, video, target = self._choose(rng)
        return f"{videos.videos[video]}/{videos.frame_name(video, target)}"

    def _choose(self, rng: np.random.Generator) -> tuple[VideoSet, int, int]:
        """The set, the video and the target frame of a sample."""
        if self.moving is not None and self.share and rng.random() < self.share:
            video = int(rng.integers(len(self.moving)))
            return self.moving, video, int(rng.integers(self.moving.length(video)))
        return self.videos, *self.targets[int(rng.integers(len(self.targets)))]

    def _cut(self, rng: np.random.Generator) -> dict[str, Tensor]:
        spec = self.spec
        videos, video, target = self._choose(rng)
        length, gap = videos.length(video), spec.gap if videos is self.videos else spec.moving_gap
        if self.single:
            clip = indices = [target]
        else:
            if spec.reverse and rng.random() < 0.5:
                mirrored = clip_indices(length - 1 - target, spec.references, gap)
                distant = length - 1 - distant_index(length, mirrored, rng)
                clip = [length - 1 - i for i in mirrored]
            else:
                clip = clip_indices(target, spec.references, gap)
                distant = distant_index(length, clip, rng)
            indices = [*clip, distant]
        scale = float(np.exp(rng.uniform(*np.log(spec.scale))))
        size = (round(spec.size[0] * scale), round(spec.size[1] * scale))
        decoded = {i: self._frame(videos, video, i, size) for i in dict.fromkeys(indices)}
        frames = torch.from_numpy(np.stack([decoded[i] for i in indices]).transpose(0, 3, 1, 2).copy())
        labels = np.stack(
            [self._labels(videos, video, clip, k, size) for k in range(max(0, len(clip) - spec.labelled), len(clip))]
        )
        frames, labels = self.crop(tv_tensors.Video(frames), tv_tensors.Mask(torch.from_numpy(labels)))
        frames = frames.as_subclass(Tensor)
        if self.colour is not None:
            frames = torch.stack([self.colour(tv_tensors.Image(f)).as_subclass(Tensor) for f in frames])
        labels = labels.as_subclass(Tensor)
        if self.degraded and rng.random() < self.degraded:
            target_frame = np.ascontiguousarray(frames[len(clip) - 1].permute(1, 2, 0).numpy())
            frames[len(clip) - 1] = torch.from_numpy(worsen(target_frame, rng)).permute(2, 0, 1)
        item = {"clip": frames, "labels": labels[0] if spec.labelled == 1 else labels}
        if not self.single:
            item["clip"], item["distant"] = frames[:-1], frames[-1]
        return item

    def _frame(self, videos: VideoSet, video: int, index: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        frame = videos.frame(video, index)
        if self.hidden is not None and index in videos.labelled(video):
            covered = self.hidden[videos.mask(video, index)]
            if covered.shape != frame.shape[:2]:
                covered = (
                    cv2.resize(covered.view(np.uint8), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
                )
            frame = frame.copy()
            frame[covered] = self.spec.fill
        return resize_frame(frame, size)

    def _labels(
        self, videos: VideoSet, video: int, clip: list[int], position: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        index = clip[position]
        if index in clip[position + 1 :] or index not in videos.labelled(video):
            return np.full(size, VOID, np.uint8)
        labels = self.table[videos.mask(video, index)]
        return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def collate(items: list[dict[str, Tensor | list[str]]]) -> dict[str, Tensor | list[str]]:
    """A batch; the lists of skipped files are joined."""
    skipped = [name for item in items for name in item.pop("skipped")]
    return {**default_collate(items), "skipped": skipped}


class Steps(Sampler[int]):
    """Sample numbers of the iterations ``start .. stop - 1``, for one of several processes.

    Iteration ``i`` is made of the samples ``i * batch .. (i + 1) * batch - 1`` whatever the number of processes and of
    accumulated parts: each process takes an equal run of them in every part.
    """

    def __init__(self, start: int, stop: int, batch: int, accumulate: int = 1, world: int = 1, rank: int = 0) -> None:
        self.iterations, self.batch = range(start, stop), batch
        self.accumulate, self.world, self.rank = accumulate, world, rank
        self.part = batch // (accumulate * world)

    def __iter__(self) -> Iterator[int]:
        for iteration in self.iterations:
            for part in range(self.accumulate):
                first = iteration * self.batch + (part * self.world + self.rank) * self.part
                yield from range(first, first + self.part)

    def __len__(self) -> int:
        return len(self.iterations) * self.accumulate * self.part
