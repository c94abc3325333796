"""The source behind what a user names: a file, images, a camera, a network stream, or raw frames on standard input.

To add a kind: a class with the members of :class:`ov2vss_runtime.video.source.Source`, and a branch in
:func:`open_source`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.containers import URL
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.images import ImageSource, is_still
from ov2vss_runtime.video.live import CameraSource, RawSource
from ov2vss_runtime.video.network import open_network
from ov2vss_runtime.video.source import Source, SourceOptions

RAW_FORMATS = ("rgb24", "bgr24", "gray8")


def open_source(source: str | Path, options: SourceOptions | None = None) -> Source:
    """Open what a user names.

    ========================  =====================================================
    ``video.mp4``             a file
    ``frames/``, ``a/*.jpg``  images, in the order of their names
    ``photo.jpg``             one image
    ``0``                     a camera, by index
    ``rtsp://..., http://``   a network stream (also rtmp, udp, tcp, srt, rtp)
    ``-``                     raw frames on standard input (:attr:`SourceOptions.raw`)
    ========================  =====================================================

    Raises:
        VideoError: it cannot be opened; the message says what was tried.
    """
    options, text = options or SourceOptions(), str(source)
    if text == "-":
        if options.raw is None:
            raise VideoError("raw frames on standard input have no size", "add --raw HEIGHTxWIDTH")
        return RawSource(sys.stdin.buffer, options.raw, options.raw_format, options.rate)
    if not text.strip():
        raise VideoError("the source has no name", "name a video, a folder of images, a camera's number or a URL")
    if URL.match(text):
        return open_network(text, options.reconnect)
    if text.isdigit() and not Path(text).exists():
        return CameraSource(int(text), options.rate)
    path = Path(text)
    if path.is_dir() or is_still(path) or (any(c in text for c in "*?[") and not path.exists()):
        return ImageSource(text, options.rate)
    return cast(Source, VideoReader(path))  # its path and number of frames are never None


def file_aspect(source: str, default: float = 16 / 9) -> float:
    """Width over height of a video file or images as they are shown; ``default`` for what can be opened only once,
    or not at all: whoever runs it says why."""
    if source == "-" or URL.match(source) or (source.isdigit() and not Path(source).exists()):
        return default
    try:
        opened = open_source(source)
    except (VideoError, OSError):
        return default
    return opened.width * float(opened.pixel_aspect) / opened.height
