"""Training crops of many partly labelled sets.

Sample ``i`` of a run is a function of ``(seed, i)`` alone, as of :class:`ov2vss.data.clips.ClipDataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ov2vss.data.clips import FILL
from ov2vss.data.concepts import Concepts
from ov2vss.data.crop_cache import CropCache
from ov2vss.data.degraded_target import worsen
from ov2vss.data.moving import MOST_THINGS, make_scene

LABEL_STRIDE = 4
"""Labels are compared at every fourth pixel."""
DENSE_STRIDE = 16
IGNORED = -1
GRID = 32
"""Pixels of a cached picture to a cell of the ImageNet grid."""


@dataclass(frozen=True)
class MovingCrops:
    """Which crops are of clips made of stills (:mod:`ov2vss.data.moving`): all of an iteration, or none.

    Attributes:
        share: of the iterations.
        batch: samples of an iteration.
        references, gap: frames before the target, and the distance between them.
        degraded: share of the targets that are made hard to see.
    """

    share: float
    batch: int
    references: int
    gap: int
    degraded: float = 0.0

    def asks(self, seed: int, sample: int) -> bool:
        """Whether a sample belongs to an iteration of clips."""
        return bool(np.random.default_rng([seed, 9, sample // self.batch]).random() < self.share)


class MixedCrops(Dataset):
    """Item ``i``: ``frame`` uint8 ``[3, h, w]``; ``rows`` int16 ``[h/4, w/4]``, the concept of a pixel, C for void, -1
    for pixels outside of the picture; ``weight`` float32 of the same shape; ``number``, the set; ``picture``, its place
    in the cache; ``cells`` int32 ``[h/16, w/16]``, the ImageNet cell of each dense feature, -1 outside. In
    iterations of clips also ``past`` uint8 ``[n, 3, h, w]``, the references, oldest first, and ``distant``
    ``[3, h, w]``.

    Args:
        cache: the pictures.
        concepts: of the sets and their teachers.
        shares: how often each set is drawn, relative.
        area, stretched: pixels of a whole picture at scale 1, and the (H, W) that half of the pictures are stretched to
            as at run time; the others keep their aspect.
        crop: (H, W).
        scale: range of the random scale.
        seed: of the run.
        weights: of the pixels of each set's classes, ``[256]`` by raw id.
        teacher, void: weights of pixels with a teacher's label, and with none at all.
        whole: sets whose teacher labels may not name a class of their own (void is none of their classes).
        moving: crops of clips that are made of the pictures; None for none.
    """

    def __init__(
        self,
        cache: CropCache,
        concepts: Concepts,
        shares: Sequence[float],
        stretched: tuple[int, int],
        crop: tuple[int, int],
        scale: tuple[float, float],
        seed: int,
        weights: Sequence[npt.NDArray[np.float32]],
        teacher: float,
        void: float,
        whole: Sequence[bool],
        photometric: bool = True,
        moving: MovingCrops | None = None,
    ) -> None:
        self.moving = moving
        self.cache, self.concepts, self.crop, self.scale, self.seed = cache, concepts, crop, scale, seed
        self.stretched, self.weights, self.teacher, self.void = stretched, weights, teacher, void
        self.photometric = photometric
        self.members = [[i for i, p in enumerate(cache.places) if p.number == s] for s in range(len(shares))]
        self.shares = np.array(shares, np.float64) / sum(shares)
        count = len(concepts)
        self.own = [_raw_table(own, count) for own in concepts.own]
        self.teachers = []
        for own, closed in zip(concepts.own, whole, strict=True):
            table = _raw_table(concepts.teacher, count)
            if closed:  # the set's own void says better where its classes are not
                table[np.isin(table, own)] = count
            self.teachers.append(table)

    def __len__(self) -> int:
        return len(self.cache)

    def describe(self, sample: int) -> str:
        """Name of a sample's picture, for messages."""
        return self.cache.places[self._choose(np.random.default_rng([self.seed, sample]))[1]].name

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        number = int(rng.choice(len(self.shares), p=self.shares))
        return number, self.members[number][int(rng.integers(len(self.members[number])))]

    def __getitem__(self, sample: int) -> dict[str, Tensor | int]:
        rng = np.random.default_rng([self.seed, sample])
        number, place = self._choose(rng)
        rgb, labels = self.cache.picture(place)
        h, w = rgb.shape[:2]
        matrix, blur = self._matrix(h, w, rng)
        pictures = {"frame": rgb}
        clip = self.moving is not None and self.moving.asks(self.seed, sample)
        if clip:
            pictures, labels = self._clip(number, rgb, labels, rng)
        found = {name: self._cut(picture, matrix, blur) for name, picture in pictures.items()}
        if self.photometric:
            # A clip has one light: all its frames are changed alike.
            state = rng.bit_generator.state
            for name in found:
                rng.bit_generator.state = state
                found[name] = distort(found[name], rng)
        if clip and self.moving is not None and rng.random() < self.moving.degraded:
            found["frame"] = worsen(found["frame"], rng)
        rows, weight = self._rows(number, labels, matrix)
        frames = {name: torch.from_numpy(np.ascontiguousarray(f.transpose(2, 0, 1))) for name, f in found.items()}
        item = {"frame": frames.pop("frame")}
        if clip:
            item |= {"distant": frames.pop("distant"), "past": torch.stack(list(frames.values()))}
        cells = self._cells(matrix, h, w)
        return item | {
            "rows": torch.from_numpy(rows),
            "weight": torch.from_numpy(weight),
            "number": number,
            "picture": place,
            # What the classifier says of a picture is not where the picture was.
            "cells": torch.from_numpy(np.full_like(cells, -1) if clip else cells),
        }

    def _clip(
        self, number: int, rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[dict[str, npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
        """Frames of a clip made of a picture by name (``frame`` the target, ``distant``, and the references by their
        number, oldest first), and the target's labels."""
        moving = self.moving
        assert moving is not None
        others = [
            self.cache.picture(self.members[number][int(k)])
            for k in rng.integers(len(self.members[number]), size=rng.integers(MOST_THINGS + 1))
        ]
        span = moving.references * moving.gap + 1
        scene = make_scene(rgb, labels, others, rng, span + 1)
        frames = {str(k): scene.frame(t)[0] for k, t in enumerate(range(1, span, moving.gap))}
        target, labels = scene.frame(span)
        return {"frame": target, "distant": scene.frame(0)[0], **frames}, labels

    def _matrix(self, h: int, w: int, rng: np.random.Generator) -> tuple[npt.NDArray, tuple[int, int] | None]:
        """Where the pixels of the crop lie in a picture of ``h`` x ``w``, and how far to blur it before."""
        base = np.array(self.stretched, np.float64)
        if rng.random() < 0.5:
            base = np.sqrt(base.prod() / (h * w)) * np.array((h, w)) * np.exp([(s := rng.uniform(-0.1, 0.1)), -s])
        size = base * np.exp(rng.uniform(*np.log(self.scale)))
        room = size - self.crop
        corner = np.array([rng.uniform(min(0, r), max(0, r)) for r in room])
        fy, fx = size / (h, w)
        flip = rng.random() < 0.5
        # Output (x, y) <- source: x_s = (x + corner) / f, mirrored on demand; pixel centres at .5.
        ax, bx = 1 / fx, (corner[1] + 0.5) / fx - 0.5
        if flip:
            ax, bx = -ax, w - 1 - bx
        matrix = np.array([[ax, 0, bx], [0, 1 / fy, (corner[0] + 0.5) / fy - 0.5]])
        blur = (max(1, round(1 / fx)), max(1, round(1 / fy))) if max(1 / fx, 1 / fy) > 1.6 else None
        return matrix, blur

    def _cut(
        self, rgb: npt.NDArray[np.uint8], matrix: npt.NDArray, blur: tuple[int, int] | None
    ) -> npt.NDArray[np.uint8]:
        out = (self.crop[1], self.crop[0])
        if blur is not None:
            rgb = cv2.blur(rgb, blur)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame: npt.NDArray[np.uint8] = cv2.warpAffine(rgb, matrix, out, flags=flags, borderValue=(FILL, FILL, FILL))
        return frame

    def _at(self, matrix: npt.NDArray, stride: int) -> tuple[npt.NDArray, npt.NDArray]:
        """Source columns and rows of every ``stride``-th output pixel."""
        ys, xs = (np.arange(side // stride) * stride + stride / 2 - 0.5 for side in self.crop)
        return matrix[0, 0] * xs + matrix[0, 2], matrix[1, 1] * ys + matrix[1, 2]

    def _rows(
        self, number: int, labels: npt.NDArray[np.uint8], matrix: npt.NDArray
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
        h, w = labels.shape[:2]
        xs, ys = (np.rint(v).astype(np.int64) for v in self._at(matrix, LABEL_STRIDE))
        inside = ((ys >= 0) & (ys < h))[:, None] & ((xs >= 0) & (xs < w))[None]
        part = labels[np.clip(ys, 0, h - 1)][:, np.clip(xs, 0, w - 1)]
        void = len(self.concepts)
        own, other = self.own[number][part[..., 0]], self.teachers[number][part[..., 1]]
        labelled, taught = own != void, other != void
        rows = np.where(labelled, own, other)
        weight = np.where(labelled, self.weights[number][part[..., 0]], np.where(taught, self.teacher, self.void))
        rows[~inside] = IGNORED
        return rows, np.where(inside, weight, 0).astype(np.float32)

    def _cells(self, matrix: npt.NDArray, h: int, w: int) -> npt.NDArray[np.int32]:
        xs, ys = self._at(matrix, DENSE_STRIDE)
        columns, rows = -(-w // GRID), -(-h // GRID)
        inside = ((ys >= 0) & (ys < h))[:, None] & ((xs >= 0) & (xs < w))[None]
        x, y = np.clip(xs // GRID, 0, columns - 1), np.clip(ys // GRID, 0, rows - 1)
        return np.where(inside, y[:, None] * columns + x[None], -1).astype(np.int32)


def _raw_table(concepts: Sequence[int], void: int) -> npt.NDArray[np.int16]:
    """Raw id ``k`` -> ``concepts[k - 1]``; all others -> ``void``."""
    table = np.full(256, void, np.int16)
    table[1 : len(concepts) + 1] = concepts
    return table


def distort(frame: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random contrast, brightness, saturation and tint of an RGB picture ``[h, w, 3]``; half of the time none."""
    if rng.random() < 0.5:
        return frame
    gain, bias = float(np.exp(rng.uniform(-0.3, 0.3))), float(rng.uniform(-24, 24))
    tint = np.exp(rng.uniform(-0.08, 0.08, 3))
    steps = np.arange(256, dtype=np.float64)[:, None]
    lut = np.clip((steps - 127) * gain * tint + 127 * tint + bias, 0, 255).astype(np.uint8)
    frame = cv2.LUT(frame, lut.reshape(1, 256, 3))
    saturation = float(rng.uniform(0.6, 1.4))
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(frame, saturation, grey, 1 - saturation, 0)
