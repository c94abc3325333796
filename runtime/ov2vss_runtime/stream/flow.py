"""Motion between neighbouring frames on the grid of the logits, and how far it can be trusted.

The flow is OpenCV's DIS at four pixels a cell of the logits, from each frame to the one before it: where a cell of the
present was a frame ago. Trust is what is left of 1 after three doubts: grey levels that differ although the motion is
taken off (beyond the picture's own noise), a coarser flow the other way round that does not lead back, and a place that
was outside of the picture. Where the flow leads back in too little of the picture, none of it is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PIXELS = 4
"""Pixels of the flow in a cell of the logits: 176 x 320 for frames of 352 x 640."""

WITHIN = 0.5
"""Cells from its start within which a way back and forth counts as found."""

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gates:
    """Constants of trust.

    Attributes:
        grey: grey levels of difference, beyond the noise, at which trust falls to 1/e.
        noise: grey levels at most that count as noise: the frame's median difference, up to so much, is taken off.
        astray: cells between start and end of the way back and forth at which trust falls to 1/e.
        lost, found: share of the picture whose way back and forth ends within half a cell. At ``lost`` and below
            nothing is taken from the frame before (a new shot, a jump, motion too fast to be found); up to ``found``
            trust grows to its full value.
    """

    grey: float = 7.0
    noise: float = 4.0
    astray: float = 2.0
    lost: float = 0.5
    found: float = 0.8


@dataclass(frozen=True)
class Motion:
    """From a frame to one before it, on the grid of the logits.

    Attributes:
        flow: ``[h, w, 2]`` float32, in cells: cell (x, y) was at ``(x + flow[y, x, 0], y + flow[y, x, 1])``.
        trust: ``[h, w]`` float32, 0..1.
    """

    flow: Plane
    trust: Plane

    @property
    def lost(self) -> bool:
        """Whether nothing was found of the earlier frame."""
        return not self.trust.any()

    def after(self, earlier: Motion) -> Motion:
        """The way on: from the frame that this motion starts from to the one that ``earlier`` ends at."""
        way = places(self.flow)
        flow = self.flow + sample(earlier.flow, way)
        return Motion(flow, self.trust * sample(earlier.trust, way))


def still(cells: tuple[int, int]) -> Motion:
    """From a frame to itself, on a grid of (h, w) cells."""
    return Motion(np.zeros((*cells, 2), np.float32), np.ones(cells, np.float32))


def places(flow: Plane) -> Plane:
    """``flow`` as places instead of distances."""
    h, w = flow.shape[:2]
    y, x = np.indices((h, w), np.float32)
    return flow + np.stack((x, y), -1)


def sample(plane: Plane, at: Plane) -> Plane:
    """A plane ``[h, w]`` or ``[h, w, 2]`` at places ``[h, w, 2]``, bilinear, held at the borders."""
    return cv2.remap(plane, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrunk(plane: npt.NDArray, cells: tuple[int, int]) -> Plane:
    """Mean over each cell."""
    return cv2.resize(plane.astype(np.float32, copy=False), cells[::-1], interpolation=cv2.INTER_AREA)


class MotionEstimator:
    """Feed it every frame; it keeps two small grey pictures of the last one.

    Args:
        cells: (h, w) of the logits.
        gates: constants of trust.
    """

    def __init__(self, cells: tuple[int, int], gates: Gates | None = None) -> None:
        self.cells, self.gates = cells, gates or Gates()
        self._fine, self._coarse = (
            cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST) for _ in range(2)
        )
        self.last: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None
        h, w = cells
        self._pixels = places(np.zeros((h * PIXELS, w * PIXELS, 2), np.float32))
        self._cells = places(np.zeros((h, w, 2), np.float32))

    def forget(self) -> None:
        """The next frame has none before it."""
        self.last = None

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Motion | None:
        """Motion from ``frame`` (RGB ``[H, W, 3]`` uint8, as the network sees it) to the one before; None for the
        first."""
        (h, w), last = self.cells, self.last
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        fine = cv2.resize(grey, (w * PIXELS, h * PIXELS), interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(fine, (w * PIXELS // 2, h * PIXELS // 2), interpolation=cv2.INTER_AREA)
        self.last = (fine, coarse)
        if last is None:
            return None
        forth = self._fine.calc(fine, last[0], None)
        flow = shrunk(forth, self.cells) / PIXELS
        return Motion(flow, self._trust(forth, flow, last))

    def _trust(
        self, forth: Plane, flow: Plane, last: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
    ) -> Plane:
        assert self.last is not None
        (fine, coarse), gates = self.last, self.gates
        before = cv2.remap(last[0], self._pixels + forth, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = shrunk(cv2.absdiff(fine, before), self.cells)
        surprise = np.maximum(difference - min(float(np.median(difference)), gates.noise), 0)
        at = self._cells + flow
        back = sample(shrunk(self._coarse.calc(last[1], coarse, None), self.cells) / (PIXELS / 2), at)
        astray = np.hypot(*np.moveaxis(flow + back, -1, 0))
        h, w = self.cells
        x, y = at[..., 0], at[..., 1]
        inside = (x >= -0.5) & (y >= -0.5) & (x <= w - 0.5) & (y <= h - 0.5)
        sure = (float((astray < WITHIN).mean()) - gates.lost) / (gates.found - gates.lost)
        return inside * np.exp(-surprise / gates.grey - astray / gates.astray) * np.float32(min(max(sure, 0.0), 1.0))
