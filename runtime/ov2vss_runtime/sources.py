"""Where frames come from: a file, images, a camera, a network stream, or raw frames on standard input.

To add a kind: a class with the members of :class:`Source`, and a branch in :func:`open_source`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from av.container import InputContainer

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video import VideoFrame, VideoReader

URL = re.compile(r"(rtsp|rtsps|rtmp|http|https|udp|tcp|srt|rtp)://", re.I)
RAW_FORMATS = ("rgb24", "bgr24", "gray8")


class Source(Protocol):
    """Frames in order, and what an output needs to know of them.

    Attributes:
        path: a file or folder, or None.
        name: for the names of outputs.
        height, width: of the frames, in pixels.
        time_base: seconds per unit of ``pts``.
        rate: frames a second, nominal.
        pixel_aspect: width of a pixel over its height.
        bt709: colour matrix that an output should use (else BT.601).
        frames: how many there are, or None.
        live: frames come by the clock, whether somebody takes them or not.
    """

    path: Path | None
    name: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction
    bt709: bool
    frames: int | None
    live: bool

    def __iter__(self) -> Iterator[VideoFrame]: ...

    def audio(self) -> InputContainer | None:
        """A container to copy audio from, or None."""
        ...


@dataclass(frozen=True)
class SourceOptions:
    """How sources are opened, as far as they do not say it themselves.

    Attributes:
        rate: frames a second of images and raw frames, or asked of a camera.
        raw: (height, width) of raw frames on standard input.
        raw_format: their pixel format.
        reconnect: seconds to try to get a lost network stream back.
    """

    rate: Fraction = Fraction(25)
    raw: tuple[int, int] | None = None
    raw_format: str = "rgb24"
    reconnect: float = 10.0


class FrameSource:
    """Defaults of sources without a container."""

    path: Path | None = None
    pixel_aspect = Fraction(1)
    bt709 = False
    frames: int | None = None
    live = False

    def audio(self) -> None:
        return None


def open_source(source: str | Path, options: SourceOptions | None = None) -> Source:
    """Open what a user names.

    ========================  =====================================================
    ``video.mp4``             a file
    ``frames/``, ``a/*.jpg``  images, in the order of their names
    ``0``                     a camera, by index
    ``rtsp://..., http://``   a network stream (also rtmp, udp, tcp, srt, rtp)
    ``-``                     raw frames on standard input (:attr:`SourceOptions.raw`)
    ========================  =====================================================

    Raises:
        VideoError: it cannot be opened; the message says what was tried.
    """
    from ov2vss_runtime.images import ImageSource
    from ov2vss_runtime.live import CameraSource, NetworkSource, RawSource

    options, text = options or SourceOptions(), str(source)
    if text == "-":
        if options.raw is None:
            raise VideoError("raw frames on standard input have no size", "add --raw HEIGHTxWIDTH")
        return RawSource(sys.stdin.buffer, options.raw, options.raw_format, options.rate)
    if URL.match(text):
        return NetworkSource(text, options.reconnect)
    if text.isdigit() and not Path(text).exists():
        return CameraSource(int(text), options.rate)
    path = Path(text)
    if path.is_dir() or (any(c in text for c in "*?[") and not path.exists()):
        return ImageSource(text, options.rate)
    return VideoReader(path)
