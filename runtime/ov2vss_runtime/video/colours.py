"""Colours of decoded frames: the matrix that a frame names, transparency, and HDR brought to BT.709."""

from __future__ import annotations

import itertools

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.reformatter import Colorspace

UNSPECIFIED = 2
HD_LINES = 720
"""From this height on, video that names no colour matrix is taken as BT.709, below as BT.601."""
BT2020 = (9, 10)
"""FFmpeg's numbers of the two colour matrices of BT.2020."""
HDR = {16: "PQ", 18: "HLG"}
"""FFmpeg's numbers of the transfer characteristics that ordinary screens cannot show."""
TRANSFER = {16: "smpte2084", 18: "arib-std-b67"}


def is_bt709(colorspace: int, height: int) -> bool:
    """Whether a stream's colour matrix (FFmpeg's number; 2 is "unspecified") is BT.709."""
    return colorspace == Colorspace.ITU709 or (colorspace == UNSPECIFIED and height >= HD_LINES)


def writes_bt709(colorspace: int, height: int) -> bool:
    """Whether video made of a stream is coded by BT.709: what is BT.709 or BT.2020 already, else BT.601."""
    return is_bt709(colorspace, height) or colorspace in BT2020


def to_plain_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Decoded frame -> RGB ``[h, w, 3]`` uint8 as stored, by the colour matrix that the frame names."""
    return np.ascontiguousarray(frame.to_ndarray(format="rgb24", src_colorspace=_matrix(frame)))


def rgb_and_alpha(frame: av.VideoFrame) -> tuple[npt.NDArray[np.uint8], bool]:
    """:func:`to_plain_rgb`, and whether the frame has pixels that are not opaque."""
    if not (frame.format.has_palette or any(c.is_alpha for c in frame.format.components)):
        return to_plain_rgb(frame), False
    rgba = frame.to_ndarray(format="rgba", src_colorspace=_matrix(frame))
    return np.ascontiguousarray(rgba[..., :3]), bool(rgba[..., 3].min() < 255)


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    return Colorspace.ITU709 if is_bt709(frame.colorspace, frame.height) else None


class ToneMapper:
    """HDR frames (PQ, HLG) -> RGB of BT.709 through FFmpeg's scaler, where it can.

    The filter's graph is built for the first frame and again whenever a frame's layout differs.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8] | None:
        """RGB ``[h, w, 3]`` uint8, or None if this FFmpeg has no such conversion."""
        key = (frame.width, frame.height, frame.format.name, frame.color_trc, frame.colorspace, frame.color_range)
        try:
            if key != self._key:
                self._key, self._graph = key, None
                self._graph = _tone_mapping(frame)
            if self._graph is None:
                return None
            self._graph.push(frame)
            return np.ascontiguousarray(self._graph.pull().to_ndarray())
        except (FFmpegError, ValueError, OSError):
            self._graph = None
            return None


def _tone_mapping(frame: av.VideoFrame) -> av.filter.Graph:
    matrix = "bt2020nc" if frame.colorspace in (*BT2020, UNSPECIFIED) else "bt709"
    graph = av.filter.Graph()
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
    known = f":colorspace={frame.colorspace}:range={frame.color_range}"
    steps = [
        graph.add("buffer", size + known),
        graph.add(
            "scale",
            f"in_primaries=bt2020:in_transfer={TRANSFER[frame.color_trc]}:in_color_matrix={matrix}:"
            "out_primaries=bt709:out_transfer=bt709:out_color_matrix=bt709:intent=perceptual",
        ),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for before, after in itertools.pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph
