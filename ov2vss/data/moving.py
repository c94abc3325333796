"""Clips made of still pictures: a camera moves over a picture, and things cut out of other pictures move on their own.

The labels of every frame are the picture's own, moved by the very same maps, so they are exact. Motion is given in
seconds and sampled at 12 to 30 frames a second: what a real film at that rate shows from frame to frame, with more ways
of moving than the few labelled films have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.data.source import VideoSet

RATES = (12.0, 30.0)
"""Frames a second, drawn for every clip."""
SPEEDS = (0.01, 0.35)
"""Of the camera, in widths of the picture a second."""
THING_AREA = (0.003, 0.12)
"""Share of its picture that a thing may cover."""
MOST_THINGS = 3
Picture = npt.NDArray[np.uint8]
Matrices = npt.NDArray[np.float64]
"""``[T, 3, 3]``: places of the picture (x, y, 1) -> places of the frame."""


@dataclass(frozen=True)
class Thing:
    """Something cut out: its pixels, labels ``[h, w, k]``, and where it is, ``[h, w]`` bool."""

    rgb: Picture
    labels: Picture
    area: npt.NDArray[np.bool_]


def about(centre: tuple[float, float], matrix: Matrices) -> Matrices:
    """Maps around a point instead of the origin."""
    shift = np.eye(3)
    shift[:2, 2] = centre
    return shift @ matrix @ np.linalg.inv(shift)


def camera(rng: np.random.Generator, size: tuple[int, int], seconds: npt.NDArray[np.float64]) -> Matrices:
    """A camera that pans, zooms, turns, tilts and shakes over a picture of ``size`` (H, W); it is in the picture's own
    place at ``seconds`` 0."""
    h, w = size
    speed, heading = np.exp(rng.uniform(*np.log(SPEEDS))) * w, rng.uniform(0, 2 * np.pi)
    zoom, turn = rng.uniform(-0.25, 0.25), np.deg2rad(rng.uniform(-5, 5))
    tilt = rng.uniform(-0.08, 0.08, 2) / (w, h)
    shake, rhythm = rng.uniform(0, 0.002) * w, rng.uniform(1, 3)
    matrices = np.empty((len(seconds), 3, 3))
    for k, t in enumerate(seconds):
        scale, angle = np.exp(zoom * t), turn * t
        tremble = shake * np.array([np.sin(2 * np.pi * rhythm * t), np.sin(2 * np.pi * 1.3 * rhythm * t)])
        x, y = speed * t * np.array([np.cos(heading), 0.4 * np.sin(heading)]) + tremble
        matrix = np.array(
            [
                [scale * np.cos(angle), -scale * np.sin(angle), x],
                [scale * np.sin(angle), scale * np.cos(angle), y],
                [tilt[0] * t, tilt[1] * t, 1],
            ]
        )
        matrices[k] = about(((w - 1) / 2, (h - 1) / 2), matrix)
    return matrices


def cut_out(rgb: Picture, labels: Picture, rng: np.random.Generator) -> Thing | None:
    """One connected region of one label that lies within the picture and is neither tiny nor huge; None without any.

    Args:
        rgb: ``[h, w, 3]``.
        labels: ``[h, w, k]``; the first layer says what is one thing, 0 and 255 nothing.
        rng: chooses.
    """
    h, w = labels.shape[:2]
    found = []
    for label in np.unique(labels[..., 0]):
        if label in (0, 255):
            continue
        count, parts, boxes, _ = cv2.connectedComponentsWithStats((labels[..., 0] == label).astype(np.uint8))
        for part in range(1, count):
            x, y, across, down, area = boxes[part]
            inside = x > 0 and y > 0 and x + across < w and y + down < h
            if inside and THING_AREA[0] <= area / (h * w) <= THING_AREA[1]:
                found.append((parts == part, (slice(y, y + down), slice(x, x + across))))
    if not found:
        return None
    area, box = found[int(rng.integers(len(found)))]
    return Thing(rgb[box].copy(), labels[box].copy(), area[box])


def thing_path(
    rng: np.random.Generator, thing: Thing, size: tuple[int, int], seconds: npt.NDArray[np.float64]
) -> Matrices:
    """A thing that crosses a frame of ``size`` (H, W), straight on, growing or shrinking, and tumbling a little."""
    (h, w), (own_h, own_w) = size, thing.area.shape
    base = np.exp(rng.uniform(np.log(0.6), np.log(1.6))) * min(1.0, 0.6 * h / own_h, 0.6 * w / own_w)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    place = rng.uniform((0.1 * w, 0.2 * h), (0.9 * w, 0.9 * h))
    speed, heading = np.exp(rng.uniform(np.log(0.03), np.log(0.8))) * w, rng.uniform(0, 2 * np.pi)
    growth, spin = rng.uniform(-0.4, 0.4), np.deg2rad(rng.uniform(-25, 25))
    matrices = np.empty((len(seconds), 3, 3))
    centre = np.eye(3)
    centre[:2, 2] = (-(own_w - 1) / 2, -(own_h - 1) / 2)
    for k, t in enumerate(seconds):
        scale, angle = base * np.exp(growth * t), spin * t
        x, y = place + speed * t * np.array([np.cos(heading), 0.3 * np.sin(heading)])
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrices[k] = np.array([[cos * flip, -sin, x], [sin * flip, cos, y], [0, 0, 1]]) @ centre
    return matrices


@dataclass(frozen=True)
class Scene:
    """A picture, the camera over it, and the things before it, far ones first.

    Attributes:
        rgb, labels: ``[h, w, 3]`` and ``[h, w, k]``.
        camera: ``[T, 3, 3]``.
        things: each with its own maps ``[T, 3, 3]``.
    """

    rgb: Picture
    labels: Picture
    camera: Matrices
    things: tuple[tuple[Thing, Matrices], ...] = ()

    def __len__(self) -> int:
        return len(self.camera)

    def frame(self, t: int) -> tuple[Picture, Picture]:
        """RGB ``[h, w, 3]`` and labels ``[h, w, k]`` of frame ``t``."""
        h, w = self.rgb.shape[:2]
        border = {"borderMode": cv2.BORDER_REFLECT_101}
        rgb = cv2.warpPerspective(self.rgb, self.camera[t], (w, h), flags=cv2.INTER_LINEAR, **border)
        labels = warped_labels(self.labels, self.camera[t], (w, h), cv2.BORDER_REFLECT_101)
        for thing, path in self.things:
            own = cv2.warpPerspective(thing.rgb, path[t], (w, h), borderMode=cv2.BORDER_REPLICATE)
            cover = cv2.warpPerspective(thing.area.astype(np.float32), path[t], (w, h))
            rgb = np.rint(rgb + cover[..., None] * (own.astype(np.float32) - rgb)).astype(np.uint8)
            moved = warped_labels(thing.labels, path[t], (w, h), cv2.BORDER_REPLICATE)
            labels[cover >= 0.5] = moved[cover >= 0.5]
        return rgb, labels


def warped_labels(labels: Picture, matrix: Matrices, size: tuple[int, int], border: int) -> Picture:
    """Labels ``[h, w, k]`` moved without mixing them; ``size`` is (width, height)."""
    moved: Picture = cv2.warpPerspective(labels, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
    return moved if moved.ndim == 3 else moved[..., None]


def make_scene(
    rgb: Picture, labels: Picture, others: list[tuple[Picture, Picture]], rng: np.random.Generator, frames: int
) -> Scene:
    """A scene of a still picture; the things come out of ``others``. The picture is as it was taken in one of the
    frames."""
    seconds = (np.arange(frames) - int(rng.integers(frames))) / rng.uniform(*RATES)
    size = (rgb.shape[0], rgb.shape[1])
    things = [found for other in others if (found := cut_out(*other, rng)) is not None]
    return Scene(
        rgb,
        labels,
        camera(rng, size, seconds),
        tuple((thing, thing_path(rng, thing, size, seconds)) for thing in things),
    )


class MovingStills:
    """The labelled frames of a set of videos as clips of their own, each moving in many ways; a set of videos itself.

    Clip ``i`` is a function of ``(seed, i)`` alone; it is called ``<video>/<frame>#<take>``.

    Args:
        videos: the set.
        frames: of a clip; all are labelled.
        takes: ways in which each picture moves.
        seed: of the run.
    """

    def __init__(self, videos: VideoSet, frames: int, takes: int = 100, seed: int = 0) -> None:
        self._inner, self._frames, self._takes, self._seed = videos, frames, takes, seed
        self.classes, self.unseen, self.background = videos.classes, videos.unseen, videos.background
        self._stills = [(v, i) for v in range(len(videos.videos)) for i in videos.labelled(v)]
        self._scene = lru_cache(maxsize=2)(self._make_scene)
        self._shown = lru_cache(maxsize=16)(self._make_frame)
        names = [f"{videos.videos[v]}/{videos.frame_name(v, i)}" for v, i in self._stills]
        self.videos = [f"{name}#{take}" for name in names for take in range(takes)]

    def __len__(self) -> int:
        return len(self.videos)

    def length(self, video: int) -> int:
        return self._frames

    def frame_name(self, video: int, index: int) -> str:
        return f"{index:03d}"

    def labelled(self, video: int) -> list[int]:
        return list(range(self._frames))

    def frame(self, video: int, index: int) -> Picture:
        return self._shown(video, index)[0]

    def mask(self, video: int, index: int) -> Picture:
        return self._shown(video, index)[1][..., 0]

    def _still(self, number: int) -> tuple[Picture, Picture]:
        place = self._stills[number]
        rgb, mask = self._inner.frame(*place), self._inner.mask(*place)
        if mask.shape != rgb.shape[:2]:
            mask = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return rgb, mask[..., None]

    def _make_scene(self, video: int) -> Scene:
        rng = np.random.default_rng([self._seed, 7, video])
        others = [self._still(int(k)) for k in rng.integers(len(self._stills), size=rng.integers(MOST_THINGS + 1))]
        return make_scene(*self._still(video // self._takes), others, rng, self._frames)

    def _make_frame(self, video: int, index: int) -> tuple[Picture, Picture]:
        return self._scene(video).frame(index)
