"""Video files in, through PyAV."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.source import VideoFrame

MOST_PIXELS = 8192 * 8192
"""Larger frames are refused: a damaged header can claim any size."""
UNSPECIFIED = 2
HD_LINES = 720
"""From this height on, video that names no colour matrix is taken as BT.709, below as BT.601."""


class VideoReader:
    """The frames of a video file, in order; a :class:`ov2vss_runtime.video.source.Source`.

    Opening reads the container once (without decoding) and refuses a file whose end is missing. Frames are upright
    (rotation in the metadata is applied), 8-bit RGB; transparency is ignored.

    Args:
        path: a file that FFmpeg can read.

    Attributes:
        pixel_aspect: width of a pixel over its height; 1 but for anamorphic video.
        bt709: whether colours are coded by BT.709 (else BT.601).

    Raises:
        VideoError: no such file, not a video, or truncated.
    """

    live = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.height = self.width = 0
        if not self.path.exists():
            raise VideoError(f"{self.path} does not exist", "check the path")
        if self.path.is_dir():
            raise VideoError(f"{self.path} is a folder", "give a video file")
        with self._open() as container:
            stream = container.streams.video[0]
            self.time_base: Fraction = stream.time_base
            self.rate: Fraction = stream.average_rate or stream.base_rate or Fraction(25)
            self.has_audio = bool(container.streams.audio)
            self.frames, self._last_key, self._end = self._scan(container)
            first = self._first(container)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.bt709 = is_bt709(stream.codec_context.colorspace, stream.codec_context.height)
        self.height, self.width = first.rgb.shape[:2]
        turned = (self.height, self.width) != (stream.codec_context.height, stream.codec_context.width)
        self.pixel_aspect = 1 / aspect if turned else aspect

    def _open(self) -> InputContainer:
        try:
            container = av.open(str(self.path))
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.path} cannot be opened as a video ({reason(error)})", "check that the file is complete"
            ) from None
        if not container.streams.video:
            container.close()
            raise VideoError(f"{self.path} holds no video stream", "give a file with a picture")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _scan(self, container: InputContainer) -> tuple[int, int, int]:
        """Number of video packets, timestamp of the last key frame and of the last packet."""
        stream = container.streams.video[0]
        count, last_key, end = 0, 0, 0
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or (packet.pts is None and packet.dts is None):
                    continue
                count += 1
                stamp = packet.pts if packet.pts is not None else packet.dts
                end = max(end, stamp)
                if packet.is_keyframe:
                    last_key = stamp
        except FFmpegError as error:
            raise VideoError(f"{self.path} breaks off after {count} frames ({reason(error)})", _REPAIR) from None
        # An mp4/mov index lists every frame, so fewer packets mean that the file was cut off.
        indexed = "mp4" in container.format.name or "mov" in container.format.name
        if count == 0 or (indexed and count < stream.frames):
            raise VideoError(f"{self.path} is truncated: {count} of {stream.frames} frames are there", _REPAIR)
        return count, last_key, end

    def _first(self, container: InputContainer) -> VideoFrame:
        try:
            container.seek(0)
        except FFmpegError:
            return next(self._decode())
        return next(self._decode(container))

    def __iter__(self) -> Iterator[VideoFrame]:
        return self._decode()

    def _decode(self, container: InputContainer | None = None) -> Iterator[VideoFrame]:
        """Frames from the container's position; timestamps that are missing or do not rise are mended."""
        owned = container is None
        container = container or self._open()
        stream = container.streams.video[0]
        step = max(1, round(1 / (self.rate * self.time_base)))
        previous: int | None = None
        count = 0
        try:
            for frame in container.decode(stream):
                pts = frame.pts if frame.pts is not None else (0 if previous is None else previous + step)
                if previous is not None and pts <= previous:
                    pts = previous + 1
                previous = pts
                count += 1
                if frame.width * frame.height > MOST_PIXELS:
                    raise VideoError(f"{self.path} has frames of {frame.width}x{frame.height}", "scale it down first")
                rgb = to_rgb(frame)
                if self.height and rgb.shape[:2] != (self.height, self.width):
                    # Some containers change the size on the way; the output cannot.
                    rgb = cv2.resize(rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)
                yield VideoFrame(rgb, pts, float(pts * self.time_base))
        except (FFmpegError, MemoryError) as error:
            raise VideoError(f"{self.path} cannot be decoded after frame {count} ({reason(error)})", _REPAIR) from None
        finally:
            if owned:
                container.close()
        if count == 0:
            raise VideoError(f"{self.path} has no frame that can be decoded", _REPAIR)

    def last_frame(self) -> VideoFrame:
        """The last frame that really decodes."""
        tail: deque[VideoFrame] = deque(maxlen=1)
        with self._open() as container, contextlib.suppress(FFmpegError, VideoError):
            container.seek(self._last_key, stream=container.streams.video[0])
            tail.extend(self._decode(container))
        if not tail:
            tail.extend(self._decode())
        return tail[0]

    def audio(self) -> InputContainer | None:
        """The container once more, to copy its audio from; None without any."""
        return self._open() if self.has_audio else None


_REPAIR = "repair or re-download the file (for example: ffmpeg -i broken.mp4 -c copy repaired.mp4)"


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Decoded frame -> upright RGB ``[h, w, 3]`` uint8, by the colour matrix that the frame names."""
    matrix = Colorspace.ITU709 if is_bt709(frame.colorspace, frame.height) else None
    rgb = frame.to_ndarray(format="rgb24", src_colorspace=matrix)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def is_bt709(colorspace: int, height: int) -> bool:
    """Whether a stream's colour matrix (FFmpeg's number; 2 is "unspecified") is BT.709."""
    return colorspace == Colorspace.ITU709 or (colorspace == UNSPECIFIED and height >= HD_LINES)


def reason(error: Exception) -> str:
    if isinstance(error, FFmpegError):
        return error.strerror or type(error).__name__
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
