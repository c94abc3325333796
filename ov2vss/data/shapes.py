"""Clips that the project makes itself: textured shapes moving over a textured ground.

A class is a composition such as "red circle". Four compositions are held out: no training clip shows them, although
every colour and every shape occurs in others, so a model can only get them right by taking the words apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary

COLOURS = {"red": (214, 45, 40), "green": (50, 170, 60), "blue": (45, 85, 215), "yellow": (230, 205, 45)}
SHAPES = ("circle", "square", "triangle", "cross")
HELD_OUT = ("red circle", "green square", "blue triangle", "yellow cross")
BACKGROUND = "background"
SIZE = (128, 192)
CLIP_FRAMES = 20
CLIPS = {"train": 400, "val": 8, "test": 24}
MARGIN = 32
PLACING_TRIES = 20
"""Bodies start apart from each other (they may cover each other later); one that finds no place is left out."""
CELL = 12
"""Pixels per cell of the coarse grids from which textures are interpolated."""


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
    texture: npt.NDArray[np.float32]
    """Coarse grid of brightness factors."""


@dataclass(frozen=True)
class _Scene:
    ground: npt.NDArray[np.float32]
    drift: npt.NDArray[np.float64]
    bodies: list[_Body]


class ShapesVideos:
    """Generated clips of ``CLIP_FRAMES`` frames; the same ``split`` always gives the same clips.

    Args:
        split: ``train`` (seen compositions only), ``val`` (seen only, for choosing) or ``test`` (all compositions).
        hold_out: False shows all compositions in ``train`` and ``val`` too.
    """

    def __init__(self, split: str, hold_out: bool = True) -> None:
        if split not in CLIPS:
            raise OV2VSSError(f"the generated clips have no split {split!r}", f"choose one of: {', '.join(CLIPS)}")
        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        self.classes = Vocabulary.from_lines([BACKGROUND, *names], "shapes")
        self.unseen = [self.classes.names.index(name) for name in HELD_OUT]
        self.background: int | None = None  # it is a class with a word, like the others
        self.split = split
        self._hidden = self.unseen if hold_out and split != "test" else []
        self.videos = [f"{split}-{i:04d}" for i in range(CLIPS[split])]
        self._scene = lru_cache(maxsize=512)(self._make_scene)

    def length(self, video: int) -> int:
        return CLIP_FRAMES

    def frame_name(self, video: int, index: int) -> str:
        return f"{index:05d}"

    def labelled(self, video: int) -> list[int]:
        return list(range(CLIP_FRAMES))

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        scene = self._scene(video)
        y, x = np.clip(np.round(MARGIN + scene.drift * index).astype(int), 0, 2 * MARGIN)
        whole = (SIZE[1] + 2 * MARGIN, SIZE[0] + 2 * MARGIN)
        image = cv2.resize(scene.ground, whole, interpolation=cv2.INTER_CUBIC)[y : y + SIZE[0], x : x + SIZE[1]].copy()
        for body in scene.bodies:
            area = _outline(body, index)
            factor = cv2.resize(body.texture, SIZE[::-1], interpolation=cv2.INTER_CUBIC)[area]
            image[area] = np.asarray(body.colour, np.float32) * factor[:, None]
        rng = np.random.default_rng([*self._key(video), index])
        image += rng.normal(0, 4, (*SIZE, 1)).astype(np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        mask = np.ones(SIZE, np.uint8)
        for body in self._scene(video).bodies:
            mask[_outline(body, index)] = body.label
        return mask

    def _key(self, video: int) -> list[int]:
        return [list(CLIPS).index(self.split), video]

    def _make_scene(self, video: int) -> _Scene:
        rng = np.random.default_rng(self._key(video))
        names = self.classes.names
        allowed = [k for k in range(1, len(names)) if k not in self._hidden]
        cells = ((SIZE[0] + 2 * MARGIN) // CELL + 2, (SIZE[1] + 2 * MARGIN) // CELL + 2)
        ground = rng.uniform(70, 180) + rng.uniform(-20, 20, 3) + 30 * rng.normal(0, 1, (*cells, 1))
        drift = rng.uniform(-1.5, 1.5, 2)
        bodies: list[_Body] = []
        for k in rng.choice(allowed, size=rng.integers(2, 5), replace=False):
            for _ in range(PLACING_TRIES):
                body = _body(rng, names[k], int(k) + 1)
                if all(np.hypot(*(body.centre - b.centre)) > 0.9 * (body.radius + b.radius) for b in bodies):
                    bodies.append(body)
                    break
        return _Scene(ground.astype(np.float32), drift, bodies)


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
        radius=rng.uniform(24, 38),
        angle=rng.uniform(-0.35, 0.35),
        spin=rng.uniform(-0.02, 0.02),
        texture=(1 + 0.12 * rng.normal(0, 1, (SIZE[0] // CELL, SIZE[1] // CELL))).astype(np.float32),
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
