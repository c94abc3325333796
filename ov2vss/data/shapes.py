"""Clips that the project makes itself: textured shapes moving over a textured ground.

A class is a composition such as "red circle". Five compositions are held out: no training clip shows them, although
every colour and every shape occurs in others, so a model can only get them right by taking the words apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss_runtime.vocabulary import Vocabulary

COLOURS = {
    "red": (214, 45, 40),
    "green": (50, 170, 60),
    "blue": (45, 85, 215),
    "yellow": (230, 205, 45),
    "purple": (145, 55, 175),
}
SHAPES = ("circle", "square", "triangle", "cross")
HELD_OUT = ("red circle", "green square", "blue triangle", "yellow cross", "purple circle")
BACKGROUND = "background"
SIZE = (128, 192)
CLIP_FRAMES = 16
CLIPS = {"train": 400, "val": 10, "test": 40}


@dataclass(frozen=True)
class _Body:
    label: int
    shape: str
    colour: tuple[int, int, int]
    centre: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]
    radius: float
    angle: float
    spin: float


class ShapesVideos:
    """Generated clips of ``CLIP_FRAMES`` frames; the same ``split`` always gives the same clips.

    Args:
        split: ``train`` (seen compositions only), ``val`` (seen only, for choosing) or ``test`` (all compositions).
    """

    def __init__(self, split: str) -> None:
        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        self.classes = Vocabulary.from_lines([BACKGROUND, *names], "shapes")
        self.unseen = [self.classes.names.index(name) for name in HELD_OUT]
        self.split = split
        self.videos = [f"{split}-{i:04d}" for i in range(CLIPS[split])]
        self._render = lru_cache(maxsize=64)(self._render_clip)

    def length(self, video: int) -> int:
        return CLIP_FRAMES

    def frame_name(self, video: int, index: int) -> str:
        return f"{index:05d}"

    def labelled(self, video: int) -> list[int]:
        return list(range(CLIP_FRAMES))

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._render(video)[0][index]

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._render(video)[1][index]

    def _render_clip(self, video: int) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint8]]]:
        rng = np.random.default_rng([sorted(CLIPS).index(self.split), video])
        names = self.classes.names
        allowed = [k for k in range(1, len(names)) if self.split == "test" or k not in self.unseen]
        ground = _texture(rng, (SIZE[0] + 64, SIZE[1] + 64), rng.uniform(60, 190, 3), 45)
        drift = rng.uniform(-1.5, 1.5, 2)
        bodies = [_body(rng, names[k], k + 1) for k in rng.choice(allowed, size=rng.integers(2, 5), replace=False)]
        textures = [_texture(rng, SIZE, np.ones(3), 0.12) for _ in bodies]
        frames, masks = [], []
        for t in range(CLIP_FRAMES):
            oy, ox = np.clip(np.round(32 + drift * t).astype(int), 0, 63)
            image = ground[oy : oy + SIZE[0], ox : ox + SIZE[1]].copy()
            mask = np.ones(SIZE, np.uint8)
            for body, texture in zip(bodies, textures, strict=True):
                area = _outline(body, t)
                image[area] = np.asarray(body.colour) * texture[area]
                mask[area] = body.label
            image = image + rng.normal(0, 4, image.shape)
            frames.append(np.clip(image, 0, 255).astype(np.uint8))
            masks.append(mask)
        return frames, masks


def _texture(rng: np.random.Generator, size: tuple[int, int], mean: npt.ArrayLike, strength: float) -> np.ndarray:
    """Smooth random texture ``[h, w, 3]``, float64."""
    coarse = rng.normal(0, 1, (size[0] // 12 + 2, size[1] // 12 + 2, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(mean) + strength * smooth.astype(np.float64)


def _body(rng: np.random.Generator, name: str, label: int) -> _Body:
    colour, shape = name.split()
    jitter = rng.uniform(-18, 18, 3)
    speed, heading = rng.uniform(0.5, 3.0), rng.uniform(0, 2 * np.pi)
    return _Body(
        label=label,
        shape=shape,
        colour=tuple(np.clip(np.asarray(COLOURS[colour]) + jitter, 0, 255).astype(int).tolist()),
        centre=rng.uniform([24, 24], [SIZE[1] - 24, SIZE[0] - 24]),
        velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
        radius=rng.uniform(20, 34),
        angle=rng.uniform(-0.35, 0.35),
        spin=rng.uniform(-0.02, 0.02),
    )


def _outline(body: _Body, t: int) -> npt.NDArray[np.bool_]:
    """Pixels of the body in frame ``t``; it bounces off the borders of the frame."""
    limit = np.array([SIZE[1], SIZE[0]], float)
    phase = np.mod(body.centre + body.velocity * t, 2 * limit)
    x, y = np.where(phase > limit, 2 * limit - phase, phase)
    mask = np.zeros(SIZE, np.uint8)
    r = body.radius
    if body.shape == "circle":
        cv2.circle(mask, (round(x), round(y)), round(0.9 * r), 1, -1)
        return mask.astype(bool)
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.15), (1.05, 0.75), (-1.05, 0.75)],
        "cross": [
            (-0.35, -1.05), (0.35, -1.05), (0.35, -0.35), (1.05, -0.35), (1.05, 0.35), (0.35, 0.35),
            (0.35, 1.05), (-0.35, 1.05), (-0.35, 0.35), (-1.05, 0.35), (-1.05, -0.35), (-0.35, -0.35),
        ],
    }[body.shape]  # fmt: skip
    angle = body.angle + body.spin * t
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.asarray(corners) @ rotation.T * r + [x, y]
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool)
