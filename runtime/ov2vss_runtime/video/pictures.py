"""Decoded frames -> upright RGB pictures of one size: display matrix, colours, transparency, changes on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.colours import HDR, ToneMapper, rgb_and_alpha, to_plain_rgb

log = logging.getLogger("ov2vss.runtime")


def _kind_of_later_release(cls: type[SideDataType], value: int) -> SideDataType:
    member: Any = object.__new__(cls)
    member._name_, member._value_ = f"TYPE_{value}", value
    return member


# PyAV 18.1 gives none of a frame's side data where one is of a kind that FFmpeg has and it has not (EXIF, of photos).
SideDataType._missing_ = classmethod(_kind_of_later_release)  # type: ignore[assignment,method-assign]

MOST_PIXELS = 8192 * 8192
"""Larger frames are refused: a damaged header can claim any size."""
Matrix = tuple[tuple[int, int], tuple[int, int]]
STRAIGHT: Matrix = ((1, 0), (0, 1))


class Pictures:
    """Upright RGB ``[h, w, 3]`` uint8 of one size from the frames of a stream, for files and networks alike.

    The first frame gives the size; a later one of another size or shape is fitted into it with black bars. What a user
    should know is told once.

    Args:
        name: of the source, for messages.
        tell: takes these messages; the log by default.

    Attributes:
        height, width: of the pictures; 0 before the first frame.
        pixel_aspect: width of a pixel over its height, upright.
        tone_mapped: the source is HDR and its pictures were mapped to BT.709.
    """

    def __init__(self, name: object, tell: Callable[[str], None] | None = None) -> None:
        self.name, self._say = name, tell or log.warning
        self._told: set[str] = set()
        self.height = self.width = 0
        self.pixel_aspect = Fraction(1)
        self.tone_mapped = False
        self._mapper = ToneMapper()

    def _tell(self, key: str, message: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._say(f"{self.name}: {message}")

    def __call__(self, frame: av.VideoFrame, aspect: Fraction | None = None) -> npt.NDArray[np.uint8]:
        """One frame.

        Args:
            frame: decoded.
            aspect: width of its pixels over their height, as stored; None for square ones.

        Raises:
            VideoError: it is larger than :data:`MOST_PIXELS`.
        """
        if frame.width * frame.height > MOST_PIXELS:
            raise VideoError(f"{self.name} has frames of {frame.width}x{frame.height}", "scale it down first")
        matrix = display_matrix(frame)
        rgb, aspect = upright(self._rgb(frame), matrix), aspect or Fraction(1)
        if matrix[0][0] == 0:
            aspect = 1 / aspect
        height, width = rgb.shape[:2]
        if not self.height:
            self.height, self.width, self.pixel_aspect = height, width, aspect
        if (height, width) == (self.height, self.width) and aspect == self.pixel_aspect:
            return rgb
        self._tell(
            "size",
            f"the picture changes from {self.width}x{self.height} to {width}x{height} on the way; "
            f"it is fitted into {self.width}x{self.height} with bars",
        )
        return letterbox(rgb, aspect, (self.height, self.width), self.pixel_aspect)

    def _rgb(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        kind = HDR.get(getattr(frame, "color_trc", 0))
        if kind is not None:
            mapped = self._mapper(frame)
            if mapped is not None:
                self.tone_mapped = True
                self._tell("hdr", f"HDR colours ({kind}) are tone-mapped to BT.709")
                return mapped
            self._tell("hdr", f"HDR colours ({kind}) are not tone-mapped, as this FFmpeg cannot: they look flat")
        if "alpha" not in self._told:
            rgb, transparent = rgb_and_alpha(frame)
            if transparent:
                self._tell("alpha", "transparency is ignored")
            return rgb
        return to_plain_rgb(frame)


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """One frame alone -> upright RGB ``[h, w, 3]`` uint8; for the frames of a stream see :class:`Pictures`."""
    return upright(to_plain_rgb(frame), display_matrix(frame))


def display_matrix(frame: av.VideoFrame) -> Matrix:
    """How a frame is to be turned and mirrored: ``(x', y') = (a x + c y, b x + d y)`` as ``((a, b), (c, d))``, y down.

    Rounded to right angles; the identity where the frame says nothing.
    """
    side: Any = frame.side_data  # its stub is that of a mapping
    for data in side:
        if data.type is SideDataType.DISPLAYMATRIX:
            values = np.frombuffer(bytes(data)[:36], np.int32)
            if values.size < 9:
                break
            a, b, c, d = (int(values[k]) for k in (0, 1, 3, 4))
            if abs(a) + abs(d) >= abs(b) + abs(c):
                # A matrix of zeros, or one with half of its entries missing, says nothing.
                return ((_sign(a), 0), (0, _sign(d))) if a and d else STRAIGHT
            return ((0, _sign(b)), (_sign(c), 0)) if b and c else STRAIGHT
    return STRAIGHT


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def upright(rgb: npt.NDArray[np.uint8], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """A picture ``[h, w, 3]`` turned and mirrored by a display matrix; its sides are exchanged for quarter turns."""
    (a, b), (c, d) = matrix
    if matrix == STRAIGHT:
        return rgb
    if a == 0:
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[::d, ::a])


def letterbox(
    rgb: npt.NDArray[np.uint8], aspect: Fraction, size: tuple[int, int], target: Fraction
) -> npt.NDArray[np.uint8]:
    """A picture ``[h, w, 3]`` fitted into another size without distortion, black bars around it.

    Args:
        rgb: the picture, whose pixels are ``aspect`` times as wide as high.
        aspect: see there.
        size: (height, width) of the result.
        target: width of its pixels over their height.
    """
    height, width = size
    shape = (rgb.shape[0], float(rgb.shape[1] * aspect / target))
    scale = min(height / shape[0], width / shape[1])
    inner = (max(1, min(height, round(shape[0] * scale))), max(1, min(width, round(shape[1] * scale))))
    shrinks = inner[0] < rgb.shape[0] or inner[1] < rgb.shape[1]
    fitted = cv2.resize(rgb, inner[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[top : top + inner[0], left : left + inner[1]] = fitted
    return out
