"""Opening a container through FFmpeg: local names are never URLs, and the picture is the one that FFmpeg would show."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import EOFError as EndOfStream
from av.error import FFmpegError
from av.video.stream import VideoStream

from ov2vss_runtime.errors import VideoError

URL = re.compile(r"(rtsp|rtsps|rtmp|http|https|udp|tcp|srt|rtp)://", re.I)
"""What counts as an address; everything else is a name in the file system."""
REPAIR = "repair or re-download the file (for example: ffmpeg -i broken.mp4 -c copy repaired.mp4)"
COVER = 0x400 | 0x800
"""FFmpeg's dispositions of pictures that are no video: attached ones and thumbnails of chapters."""
TILE = 0x80000
"""FFmpeg's disposition of streams that are parts of a larger picture, as in the HEIC files of phones."""
DISCONTINUOUS = 0x0200
"""FFmpeg's flag of formats whose clock may jump (MPEG-TS, MPEG-PS, HLS)."""


def open_container(path: str | Path, **options: Any) -> InputContainer:
    """Open a file, whatever characters its name has, or an address.

    Args:
        path: file, or one of the addresses of :data:`URL`.
        options: of :func:`av.open`, such as ``timeout``.

    Raises:
        VideoError: FFmpeg cannot open it.
    """
    text = os.fspath(path)
    if URL.match(text) is None:
        # "12:30:00.mp4" and "concat:x" look like protocols, "50%d.ppm" like a sequence: none of that is meant.
        text = "file:" + os.path.abspath(text)
        options.setdefault("options", {"pattern_type": "none"})
    try:
        # Tags may be in any encoding; nobody reads them here.
        return av.open(text, metadata_errors="replace", **options)
    except (FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path} cannot be opened as a video ({reason(error)})", "check that the file is complete"
        ) from None


def find_video(container: InputContainer, name: object) -> VideoStream:
    """The video stream that FFmpeg itself prefers, cover pictures left aside.

    Args:
        container: open for reading.
        name: of the source, for messages.

    Raises:
        VideoError: there is none, or only a cover picture, or one of an unknown codec.
    """
    streams = container.streams.video
    moving = [s for s in streams if not int(s.disposition) & COVER]
    known = [s for s in moving if s.codec_context is not None]
    if not streams:
        raise VideoError(f"{name} holds no video stream", "give a file with a picture")
    if not moving:
        raise VideoError(f"{name} holds only a cover picture and no video", "give a file with moving pictures")
    if not known:
        raise VideoError(f"the picture of {name} has a codec that FFmpeg does not know", "convert it first")
    whole = [s for s in known if not int(s.disposition) & TILE]
    if not whole:
        raise VideoError(
            f"{name} is one picture in {len(known)} tiles, which FFmpeg's libraries do not put together",
            "run: pip install 'ov2vss[heic]', or convert it to JPEG or PNG",
        )
    best = container.streams.best("video")
    if best in whole:
        return best  # type: ignore[return-value]
    return max(whole, key=lambda s: (s.codec_context.width or 0) * (s.codec_context.height or 0))


def packets(container: InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets until the end, or until the first place where the container itself cannot be read any further."""
    reading = container.demux(*streams)
    while True:
        try:
            packet = next(reading, None)
        except EndOfStream:
            return
        if packet is None:
            return
        yield packet


def reason(error: BaseException) -> str:
    """What FFmpeg or the system says, in a few words."""
    if isinstance(error, FFmpegError):
        return error.strerror or type(error).__name__
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
