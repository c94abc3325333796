"""Motion between neighbouring frames on the grid of the logits, and how far it can be trusted.

The flow is OpenCV's DIS at half the network's size, from each frame to the one before it: where a cell of the present
was a frame ago. Trust is what is left of 1 after three doubts: grey levels that differ although the motion is
taken off (beyond the picture's own noise), a coarser flow the other way round that does not lead back, and a place that
was outside of the picture. Where the flow leads back in too little of the picture, none of it is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FLOW_SHRINK = 2
"""The flow's pictures are so many times smaller than the network's: 176 x 320 for frames of 352 x 640; those of the way
back twice that."""
FOUND_WITHIN = 4.0
"""Pixels of the network's frame from its start within which a way back and forth counts as found."""

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gates:
    """Constants of trust.

    Attributes:
        grey: grey levels of difference, beyond the noise, at which trust falls to 1/e.
        noise: grey levels at most that count as noise: the frame's median difference, up to so much, is taken off.
        astray: pixels (of the network's frame) between start and end of the way back and forth at which trust falls to
            1/e.
        lost, found: share of the picture whose way back and forth ends within :data:`FOUND_WITHIN` pixels. At ``lost``
            and below nothing is taken from the frame before (a new shot, motion too fast to be found); up to ``found``
            trust grows to its full value.
    """

    grey: float = 7.0
    noise: float = 4.0
    astray: float = 16.0
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


def displacement(dis: Any, picture: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> Plane:
    """DIS flow from a picture to another one, by nothing but these two.

    OpenCV chooses a finer scale in its first call with small pictures, and keeps it: without a second call, the same
    two pictures would have another flow at the beginning of a stream than later. All pictures have one size.
    """
    scale = dis.getFinestScale()
    found: Plane = dis.calc(picture, other, None)
    return found if dis.getFinestScale() == scale else displacement(dis, picture, other)


Pictures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


class MotionEstimator:
    """Feed it every frame; it keeps two small grey pictures of the last one, at half and at a quarter of its size."""

    def __init__(self, gates: Gates | None = None) -> None:
        self.gates = gates or Gates()
        make: Any = cv2.DISOpticalFlow_create  # type: ignore[attr-defined]  # its stubs leave it out
        self._fine, self._coarse = (make(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST) for _ in range(2))
        self.last: Pictures | None = None

    def forget(self) -> None:
        """The next frame has none before it."""
        self.last = None

    def __call__(self, frame: npt.NDArray[np.uint8], cells: tuple[int, int] | None) -> Motion | None:
        """Motion from ``frame`` to the one before it.

        Args:
            frame: RGB ``[H, W, 3]`` uint8, as the network sees it.
            cells: (h, w) of the logits; None to see the frame only.

        Returns:
            None for the first frame, and without ``cells``.
        """
        grey, last = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), self.last
        h, w = (side // FLOW_SHRINK for side in grey.shape)
        fine = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)
        now = (fine, cv2.resize(fine, (w // 2, h // 2), interpolation=cv2.INTER_AREA))
        self.last = now
        return None if last is None or cells is None else self._motion(now, last, cells)

    def _motion(self, now: Pictures, last: Pictures, cells: tuple[int, int]) -> Motion:
        gates, (h, w) = self.gates, cells
        forth = displacement(self._fine, now[0], last[0])
        before = cv2.remap(last[0], places(forth), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = shrunk(cv2.absdiff(now[0], before), cells)
        surprise = np.maximum(difference - min(float(np.median(difference)), gates.noise), 0)
        # From here on in cells.
        pixels = np.array([now[0].shape[1] / w, now[0].shape[0] / h], np.float32)
        flow = shrunk(forth, cells) / pixels
        back = (shrunk(displacement(self._coarse, last[1], now[1]), cells) / (pixels / 2)).astype(
            np.float32, copy=False
        )
        at = places(flow)
        astray = np.hypot(*np.moveaxis((flow + sample(back, at)) * pixels * FLOW_SHRINK, -1, 0))
        sure = (float((astray < FOUND_WITHIN).mean()) - gates.lost) / (gates.found - gates.lost)
        x, y = at[..., 0], at[..., 1]
        inside = (x >= -0.5) & (y >= -0.5) & (x <= w - 0.5) & (y <= h - 0.5)
        trust = np.exp(-surprise / gates.grey - astray / gates.astray) * np.float32(min(max(sure, 0.0), 1.0))
        return Motion(flow, inside * trust)
