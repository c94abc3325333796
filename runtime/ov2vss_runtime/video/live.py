"""Sources that come by the clock: cameras, network streams, raw frames on a pipe."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfStream
from av.error import FFmpegError

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.file import is_bt709, reason, to_rgb
from ov2vss_runtime.video.source import FrameSource, VideoFrame

log = logging.getLogger("ov2vss.runtime")

TICKS = 90_000
"""Units of time a second in live sources."""
FASTEST = 240
"""Frames a second that are believed."""
TIMEOUT = 5.0
"""Seconds without data after which a connection counts as lost."""
BACK_OFF = (0.25, 0.5, 1.0, 2.0)
"""Seconds between attempts to get a stream back; the last one repeats."""


class LiveSource(FrameSource):
    """Timestamps in units of 1/90,000 s from the first frame on, rising."""

    live = True
    time_base = Fraction(1, TICKS)

    def __init__(self) -> None:
        self._last = -1

    def _stamp(self, rgb: np.ndarray, seconds: float, gap: bool = False) -> VideoFrame:
        pts = max(self._last + 1, round(seconds * TICKS))
        self._last = pts
        return VideoFrame(rgb, pts, pts / TICKS, gap=gap)


class NetworkSource(LiveSource):
    """A stream that FFmpeg opens by its URL (RTSP over TCP, HTTP, ...).

    A connection that is lost is sought again, with growing pauses, for ``reconnect`` seconds; the frame after such a
    gap says so, and time has gone on by the clock. A stream of known length that is played to its end has ended. So
    has one that the other side closed properly and that does not come back; one that broke off is an error.

    Args:
        url: what to open.
        reconnect: seconds to try to get a lost stream back; 0 not to try.

    Raises:
        VideoError: nothing there, no picture in it, or lost for longer than that.
    """

    def __init__(self, url: str, reconnect: float = 10.0) -> None:
        super().__init__()
        self.url, self.reconnect = url, reconnect
        self.shown = url.split("?")[0].split("@")[-1]  # no passwords in messages
        self.name = self.shown.rstrip("/").split("/")[-1].split(".")[0] or "stream"
        self.reconnects = 0
        try:
            self._container: InputContainer | None = self._connect()
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.shown} cannot be opened ({reason(error)})", "check the address, and that the stream is on"
            ) from None
        stream = self._container.streams.video[0]
        rate = stream.average_rate or stream.base_rate
        # Some streams only know the ticks of their clock.
        self.rate = rate if rate is not None and 1 <= rate <= FASTEST else Fraction(25)
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.height, self.width = stream.codec_context.height, stream.codec_context.width
        self.bt709 = is_bt709(stream.codec_context.colorspace, self.height)
        if not self.height or not self.width:
            raise VideoError(f"{self.shown} does not say how large its picture is", "check the stream with ffprobe")
        duration = self._container.duration
        self._length = duration / av.time_base if duration else None

    def _connect(self) -> InputContainer:
        options = {"rtsp_transport": "tcp"} if self.url.lower().startswith("rtsp") else {}
        container = av.open(self.url, options=options, timeout=(TIMEOUT, TIMEOUT))
        if not container.streams.video:
            container.close()
            raise ValueError("no picture in it")
        container.streams.video[0].thread_type = "SLICE"  # frame threads hold frames back
        return container

    def __iter__(self) -> Iterator[VideoFrame]:
        began: float | None = None
        offset, gap, fault = 0.0, False, None
        while self._container is not None:
            # Iterated over once: what is closed is not tried again.
            container, self._container = self._container, None
            first: float | None = None
            position = 0.0
            try:
                for frame in container.decode(video=0):
                    began = began or time.monotonic()
                    position = frame.time if frame.time is not None else position + float(1 / self.rate)
                    if first is None:
                        first = position
                        offset = time.monotonic() - began if gap else 0.0
                    yield self._stamp(self._fit(to_rgb(frame)), offset + position - first, gap)
                    gap = False
                fault = None
            except EndOfStream:
                fault = None
            except FFmpegError as error:
                fault = reason(error)
            finally:
                container.close()
            if self._length is not None:
                if position < self._length - 1:
                    raise VideoError(f"{self.shown} broke off at {position:.1f} of {self._length:.1f} s", "try again")
                return
            self._container, gap = self._reconnect(fault), True
        if began is None:
            raise VideoError(
                f"{self.shown} sent no picture ({fault or 'closed'})", "open it again, or check the stream"
            )

    def _reconnect(self, fault: str | None) -> InputContainer | None:
        """The stream again; None if it ended."""
        began, attempt = time.monotonic(), 0
        if self.reconnect > 0:
            log.warning("%s: %s; trying to get it back", self.shown, f"lost ({fault})" if fault else "closed")
        while time.monotonic() - began < self.reconnect:
            time.sleep(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
            attempt += 1
            try:
                container = self._connect()
            except (FFmpegError, OSError, ValueError):
                continue
            self.reconnects += 1
            log.warning("%s: back after %.1f s", self.shown, time.monotonic() - began)
            return container
        if fault is not None:
            raise VideoError(
                f"{self.shown} was lost ({fault}) and not back within {self.reconnect:g} s",
                "check the stream, or allow more time with --reconnect",
            )
        return None

    def _fit(self, rgb: np.ndarray) -> np.ndarray:
        """A sender that came back with another size is scaled to the first one's."""
        if rgb.shape[:2] == (self.height, self.width):
            return rgb
        return cv2.resize(rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)


class CameraSource(LiveSource):
    """A camera by its index, through OpenCV.

    Args:
        index: 0 for the first one.
        rate: frames a second that are asked for.
    """

    def __init__(self, index: int, rate: Fraction = Fraction(25)) -> None:
        super().__init__()
        self.name = f"camera{index}"
        logging_ = cv2.utils.logging
        level = logging_.getLogLevel()
        logging_.setLogLevel(logging_.LOG_LEVEL_SILENT)  # OpenCV would print its own lines about it
        try:
            self._camera = cv2.VideoCapture(index)
        finally:
            logging_.setLogLevel(level)
        self._first: Any
        done, self._first = self._camera.read() if self._camera.isOpened() else (False, None)
        if not done:
            self._camera.release()
            raise VideoError(f"there is no camera {index}, or another program has it", "give the index of another one")
        self._camera.set(cv2.CAP_PROP_FPS, float(rate))
        self.rate = rate
        self.height, self.width = self._first.shape[:2]

    def __iter__(self) -> Iterator[VideoFrame]:
        began, bgr = time.monotonic(), self._first
        try:
            while bgr is not None:
                yield self._stamp(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), time.monotonic() - began)
                done, bgr = self._camera.read()
                if not done:
                    raise VideoError(f"{self.name} stopped sending pictures", "check its cable")
        finally:
            self._camera.release()


class RawSource(FrameSource):
    """Frames without any header from a pipe, one after the other, as ``ffmpeg -f rawvideo`` writes them.

    Args:
        stream: opened for reading bytes.
        size: (height, width).
        pixels: ``rgb24``, ``bgr24`` or ``gray8``.
        rate: frames a second, for the timestamps.
    """

    def __init__(
        self, stream: BinaryIO, size: tuple[int, int], pixels: str = "rgb24", rate: Fraction = Fraction(25)
    ) -> None:
        self._stream, self._pixels = stream, pixels
        self.name = "stdin"
        (self.height, self.width), self.rate, self.time_base = size, rate, 1 / rate

    def __iter__(self) -> Iterator[VideoFrame]:
        channels = 1 if self._pixels == "gray8" else 3
        index, size = 0, self.height * self.width * channels
        while True:
            data = bytearray(size)
            filled = self._fill(memoryview(data))
            if filled == 0 and index:
                return
            if filled < size:
                raise VideoError(
                    f"standard input ended after {index} frames and {filled} of {size} bytes",
                    "check --raw HEIGHTxWIDTH and --raw-format",
                )
            rgb = np.frombuffer(data, np.uint8).reshape(self.height, self.width, channels)
            if self._pixels == "gray8":
                rgb = np.repeat(rgb, 3, axis=2)
            elif self._pixels == "bgr24":
                rgb = np.ascontiguousarray(rgb[:, :, ::-1])
            yield VideoFrame(rgb, index, float(index * self.time_base))
            index += 1

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            read = self._stream.readinto(view[filled:])  # type: ignore[attr-defined]
            if not read:
                break
            filled += read
        return filled
