"""Sources that come by the clock: cameras, and raw frames on a pipe."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import cv2
import numpy as np

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.source import FrameSource, VideoFrame

log = logging.getLogger("ov2vss.runtime")

TICKS_PER_SECOND = 90_000
"""Units of time a second in live sources."""
POLL_SECONDS = 0.1
"""Seconds after which a read looks whether it is still wanted."""


class LiveSource(FrameSource):
    """Timestamps in units of 1/90,000 s from the first frame on, rising."""

    live = True
    time_base = Fraction(1, TICKS_PER_SECOND)

    def __init__(self) -> None:
        self._last = -1

    def _stamp(self, rgb: np.ndarray, seconds: float, gap: bool = False) -> VideoFrame:
        pts = max(self._last + 1, round(seconds * TICKS_PER_SECOND))
        self._last = pts
        return VideoFrame(rgb, pts, pts / TICKS_PER_SECOND, gap=gap)


class CameraSource(LiveSource):
    """A camera by its index, through OpenCV.

    Args:
        index: 0 for the first one.
        rate: frames a second that are asked for.
    """

    def __init__(self, index: int, rate: Fraction = Fraction(25)) -> None:
        super().__init__()
        self.name = f"camera{index}"
        self._stopped, self._busy = threading.Event(), threading.Lock()
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
        with self._busy:
            try:
                while bgr is not None and not self._stopped.is_set():
                    yield self._stamp(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), time.monotonic() - began)
                    done, bgr = self._camera.read()
                    if not done and not self._stopped.is_set():
                        raise VideoError(f"{self.name} stopped sending pictures", "check its cable")
            finally:
                self._camera.release()

    def close(self) -> None:
        # A driver that waits for a picture cannot be interrupted; its thread ends with the next picture.
        self._stopped.set()
        if self._busy.acquire(blocking=False):
            try:
                self._camera.release()
            finally:
                self._busy.release()


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
        self._stopped = threading.Event()
        try:
            self._pipe: int | None = stream.fileno() if os.name == "posix" else None
        except (OSError, AttributeError):
            self._pipe = None  # bytes in memory, in tests
        self.name = "stdin"
        (self.height, self.width), self.rate, self.time_base = size, rate, 1 / rate

    def __iter__(self) -> Iterator[VideoFrame]:
        channels = 1 if self._pixels == "gray8" else 3
        index, size = 0, self.height * self.width * channels
        while True:
            data = bytearray(size)
            filled = self._fill(memoryview(data))
            if self._stopped.is_set() or (filled == 0 and index):
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
            read = self._read(view[filled:])
            if not read or self._stopped.is_set():
                break
            filled += read
        return filled

    def _read(self, view: memoryview) -> int:
        """Bytes into a view: never more than a moment's wait in a system call, so that :meth:`close` is heard."""
        if self._pipe is None:
            return self._stream.readinto(view) or 0  # type: ignore[attr-defined]
        while not self._stopped.is_set():
            if select.select([self._pipe], [], [], POLL_SECONDS)[0]:
                return os.readv(self._pipe, [view])
        return 0

    def close(self) -> None:
        self._stopped.set()
