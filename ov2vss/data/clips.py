"""Training clips: which frames, which crop, which colours.

Sample ``i`` of a run is a function of ``(seed, i)`` alone, whatever worker makes it: that is what makes an interrupted
and resumed run equal to an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from ov2vss.data.source import VideoSet
from ov2vss_runtime.preprocess import resize_frame
from ov2vss_runtime.protocol import VOID

FILL = 127


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
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    references: int = 3
    gap: int = 3
    reverse: bool = True
    flip: bool = True
    photometric: bool = True


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
    """Item ``i``: ``{"clip": uint8 [n+1, 3, h, w], "distant": uint8 [3, h, w], "labels": uint8 [h, w]}``.

    Args:
        videos: labelled videos.
        table: look-up table [256] from raw ids to training labels.
        spec: how clips are cut.
        seed: of the run.
        single: give only the target frame (``clip`` is ``[1, 3, h, w]``, no ``distant``).
    """

    def __init__(
        self, videos: VideoSet, table: npt.NDArray[np.uint8], spec: ClipSpec, seed: int, single: bool = False
    ) -> None:
        self.videos, self.table, self.spec, self.seed, self.single = videos, table, spec, seed, single
        self.targets = [(v, i) for v in range(len(videos.videos)) for i in videos.labelled(v)]
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

    def __getitem__(self, sample: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, sample])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            return self._cut(rng)

    def _cut(self, rng: np.random.Generator) -> dict[str, Tensor]:
        spec = self.spec
        video, target = self.targets[int(rng.integers(len(self.targets)))]
        length = self.videos.length(video)
        if self.single:
            indices = [target]
        else:
            if spec.reverse and rng.random() < 0.5:
                mirrored = clip_indices(length - 1 - target, spec.references, spec.gap)
                distant = length - 1 - distant_index(length, mirrored, rng)
                indices = [length - 1 - i for i in mirrored]
            else:
                indices = clip_indices(target, spec.references, spec.gap)
                distant = distant_index(length, indices, rng)
            indices.append(distant)
        scale = float(np.exp(rng.uniform(*np.log(spec.scale))))
        size = (round(spec.size[0] * scale), round(spec.size[1] * scale))
        decoded = {i: resize_frame(self.videos.frame(video, i), size) for i in dict.fromkeys(indices)}
        frames = torch.from_numpy(np.stack([decoded[i] for i in indices]).transpose(0, 3, 1, 2).copy())
        labels = self.table[self.videos.mask(video, target)]
        labels = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        frames, labels = self.crop(tv_tensors.Video(frames), tv_tensors.Mask(torch.from_numpy(labels)))
        frames = frames.as_subclass(Tensor)
        if self.colour is not None:
            frames = torch.stack([self.colour(tv_tensors.Image(f)).as_subclass(Tensor) for f in frames])
        item = {"clip": frames, "labels": labels.as_subclass(Tensor)}
        if not self.single:
            item["clip"], item["distant"] = frames[:-1], frames[-1]
        return item


class Steps(Sampler[int]):
    """Sample numbers ``start .. stop - 1``: the batches of the iterations that are left."""

    def __init__(self, start: int, stop: int) -> None:
        self.range = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.range)

    def __len__(self) -> int:
        return len(self.range)
