"""What FFmpeg opens by its URL: live streams, and files of known length on a server."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from typing import NamedTuple, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import EOFError as EndOfStream
from av.error import FFmpegError, InvalidDataError
from av.video.stream import VideoStream

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.colours import writes_bt709
from ov2vss_runtime.video.containers import find_video, reason
from ov2vss_runtime.video.live import LiveSource
from ov2vss_runtime.video.pictures import Pictures
from ov2vss_runtime.video.sockets import Connections
from ov2vss_runtime.video.source import VideoFrame
from ov2vss_runtime.video.timeline import Timeline

log = logging.getLogger("ov2vss.runtime")
T = TypeVar("T")

FASTEST_RATE = 240
"""Frames a second that are believed."""
TIMEOUT = 5.0
"""Seconds without data after which a connection counts as lost."""
BACK_OFF = (0.25, 0.5, 1.0, 2.0)
"""Seconds between attempts to get a stream back; the last one repeats."""
NO_CLOCK = 0x80
"""FFmpeg's flag of formats without timestamps: those that it makes up say nothing about a live stream."""
GROUP = 15.0
"""Seconds before the end in which a key frame is looked for."""
PATIENCE = 1.0
"""Seconds in which a connection that is shut down has to let go."""
CONNECTION_LOST = (FFmpegError, OSError, ValueError, VideoError)


class _Picture(NamedTuple):
    rgb: npt.NDArray[np.uint8]
    stamp: int | None
    arrived: float


class NetworkSource(LiveSource):
    """A stream that FFmpeg opens by its URL (RTSP over TCP, or UDP where the server has no TCP; HTTP, ...).

    A connection that is lost is sought again, with growing pauses, for ``reconnect`` seconds; the frame after such a
    gap says so, and time has gone on by the clock. So does the frame at which the sender's own clock starts again. A
    stream of known length that is played to its end has ended. So has one that the other side closed properly and that
    does not come back; one that broke off is an error. Where a stream has no timestamps, frames have those of their
    arrival; the first frame alone often has none (RTSP).

    Args:
        url: what to open.
        reconnect: seconds to try to get a lost stream back; 0 not to try.

    Attributes:
        reconnects: how often it came back.
        length: seconds that it lasts, or None where nobody knows.

    Raises:
        VideoError: nothing there, no picture in it, or lost for longer than that.
    """

    def __init__(self, url: str, reconnect: float = 10.0) -> None:
        super().__init__()
        self.url, self.reconnect = url, reconnect
        self.shown = url.split("?")[0].split("@")[-1]  # no passwords in messages
        self.name = self.shown.rstrip("/").split("/")[-1].split(".")[0] or "stream"
        self.reconnects, self.ended = 0, False
        self._stopped = threading.Event()
        self._busy = threading.Lock()
        self._connections: Connections | None = None
        self._container: InputContainer | None = None
        try:
            self._away(self._begin)
        except CONNECTION_LOST as error:
            why = error.problem if isinstance(error, VideoError) else reason(error)
            raise VideoError(
                f"{self.shown} cannot be opened ({why})", "check the address, and that the stream is on"
            ) from None

    def _begin(self) -> None:
        """Connect, and look at the first picture: it says how large the others are, and which way is up."""
        self._container, stream = container, _ = self._connect()
        rate = stream.average_rate or stream.base_rate
        # Some streams only know the ticks of their clock.
        self.rate = rate if rate is not None and 1 <= rate <= FASTEST_RATE else Fraction(25)
        self.length = container.duration / av.time_base if container.duration else None
        listed = container.format.name.split(",")[0] in ("hls", "dash")
        self.whole = self.length is not None and (container.size > 0 or listed)
        self._pictures = Pictures(self.shown)
        pictures = self._decode(container, stream)
        first = next(pictures, None)
        if first is None:
            raise VideoError("it sent no picture", "check the stream")
        self.timeline = self._new_timeline(stream)
        self._clock = not int(container.format.flags) & NO_CLOCK or self.whole
        self._reading = chain([first], pictures)
        self.height, self.width = self._pictures.height, self._pictures.width
        self.pixel_aspect = self._pictures.pixel_aspect
        context = stream.codec_context
        self.bt709 = self._pictures.tone_mapped or writes_bt709(context.colorspace, context.height)

    def _new_timeline(self, stream: VideoStream) -> Timeline:
        base = stream.time_base or Fraction(1, 90_000)
        return Timeline(base, round(1 / (self.rate * base)), None, jumps_forward=True)

    def _connect(self) -> tuple[InputContainer, VideoStream]:
        options = {"rtsp_flags": "prefer_tcp"} if self.url.lower().startswith("rtsp") else {}
        if self._connections is not None:
            self._connections.release()
        self._connections = Connections(self.url)
        container = av.open(self.url, options=options, timeout=(TIMEOUT, TIMEOUT), metadata_errors="replace")
        self._connections.claim()
        try:
            if self._stopped.is_set():
                raise ValueError("closed")
            stream = find_video(container, self.shown)
        except BaseException:
            container.close()
            raise
        stream.thread_type = "SLICE"  # frame threads hold frames back
        return container, stream

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[_Picture]:
        """Pictures until the connection ends; packets that are damaged are left out."""
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except InvalidDataError:
                continue
            for frame in frames:
                arrived = time.monotonic()
                yield _Picture(self._pictures(frame, stream.sample_aspect_ratio), frame.pts, arrived)

    def __iter__(self) -> Iterator[VideoFrame]:
        with self._busy:
            try:
                yield from self._frames()
            except (FFmpegError, VideoError):
                if not self._stopped.is_set():
                    raise
            finally:
                self._let_go()

    def _frames(self) -> Iterator[VideoFrame]:
        began: float | None = None
        offset, gap, fault, seconds = 0.0, False, None, 0.0
        while self._container is not None and not self._stopped.is_set():
            # Iterated over once: what is closed is not tried again.
            container, self._container = self._container, None
            entered: float | None = None
            try:
                for rgb, stamp, arrived in self._reading:
                    began = arrived if began is None else began
                    if entered is None:
                        entered, by_clock, seconds = arrived, False, 0.0
                        offset = arrived - began if gap else 0.0
                    jumps = self.timeline.jumps
                    place = self.timeline.seconds(self.timeline.place(stamp))
                    gap = gap or self.timeline.jumps > jumps
                    if self._clock and stamp is not None and not by_clock:
                        by_clock = True
                        offset += max(0.0, seconds - place)  # the clock goes on where the arrivals had come to
                    seconds = place if by_clock else arrived - entered
                    yield self._stamp(rgb, offset + seconds, gap)
                    gap = False
                    if self._stopped.is_set():
                        return
                fault = None
            except EndOfStream:
                fault = None
            except FFmpegError as error:
                fault = reason(error)
            finally:
                container.close()
            if self._stopped.is_set():
                return
            if self.length is not None:
                # Both are counted from the first picture; the clock of a stream may begin anywhere.
                if seconds < self.length - 1:
                    raise VideoError(f"{self.shown} broke off at {seconds:.1f} of {self.length:.1f} s", "try again")
                self.ended = True
                return
            gap = True
            self._reconnect(fault)
        if began is None and not self._stopped.is_set():
            raise VideoError(
                f"{self.shown} sent no picture ({fault or 'closed'})", "open it again, or check the stream"
            )

    def _reconnect(self, fault: str | None) -> None:
        """Get the stream again; without a container afterwards it has ended."""
        began, attempt = time.monotonic(), 0
        if self.reconnect > 0:
            log.warning("%s: %s; trying to get it back", self.shown, f"lost ({fault})" if fault else "closed")
        while time.monotonic() - began < self.reconnect:
            if self._stopped.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)]):
                return
            attempt += 1
            try:
                self._container, stream = self._connect()
            except CONNECTION_LOST:
                continue
            self._reading = chain(self._decode(self._container, stream))
            self.timeline = self._new_timeline(stream)
            self.reconnects += 1
            log.warning("%s: back after %.1f s", self.shown, time.monotonic() - began)
            return
        if fault is not None:
            raise VideoError(
                f"{self.shown} was lost ({fault}) and not back within {self.reconnect:g} s",
                "check the stream, or allow more time with --reconnect",
            )

    def _away(self, work: Callable[[], T]) -> T:
        """Do something that may wait for a network in a thread, so that Ctrl-C gets through at once."""
        results: list[T] = []
        errors: list[BaseException] = []

        def do() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=do, name="ov2vss-reader", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.2)
        except BaseException:
            self._stopped.set()
            self._shut_down(lambda: not thread.is_alive())
            raise
        if errors:
            raise errors[0]
        return results[0]

    def _shut_down(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < deadline:
            if self._connections is not None:
                self._connections.end()  # again and again: a protocol may open one socket after another
            time.sleep(0.02)

    def _let_go(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()
        if self._connections is not None:
            self._connections.release()

    def close(self) -> None:
        self._stopped.set()
        if threading.current_thread().name == "ov2vss-reader":
            return
        self._shut_down(lambda: not self._busy.locked())
        if self._busy.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._busy.release()


class RemoteFile(NetworkSource):
    """A file on a server: it waits for whoever takes its frames, has sound and an end."""

    live = False

    def __init__(self, url: str, reconnect: float = 10.0) -> None:
        super().__init__(url, reconnect)
        self._final: VideoFrame | None = None
        with contextlib.suppress(*CONNECTION_LOST):
            self._final = self._away(self._find_last)
        if self._final is None:
            self.last_frame = None  # type: ignore[assignment, method-assign]  # a server without byte ranges: the end is not known before it is there

    def _find_last(self) -> VideoFrame | None:
        """The last frame, through a connection of its own."""
        container, stream = self._connect()
        with container:
            head = next(self._decode(container, stream), None)
            assert self.length is not None
            begin = container.start_time or 0
            last = None
            for back in (0.0, GROUP):  # formats without an index are not sought by key frames
                container.seek(begin + round(max(0.0, self.length - back) * av.time_base))
                for picture in self._decode(container, stream):
                    last = picture
                if last is not None:
                    break
            if head is None or last is None or last.stamp is None or head.stamp is None:
                return None
            seconds = float((last.stamp - head.stamp) * (stream.time_base or 0))
            # A seek that did nothing, or a clock that jumps, would give another frame than the last.
            near = self.length - 2 < seconds <= self.length + 1
            return VideoFrame(last.rgb, round(seconds / self.time_base), seconds) if near else None

    def last_frame(self) -> VideoFrame:  # type: ignore[no-redef]
        assert self._final is not None
        return self._final

    def audio(self) -> InputContainer | None:  # type: ignore[override]
        """The file once more, to take its sound from; None without any."""
        container = av.open(self.url, timeout=(TIMEOUT, TIMEOUT), metadata_errors="replace")
        if container.streams.audio:
            return container
        container.close()
        return None


def open_network(url: str, reconnect: float = 10.0) -> NetworkSource:
    """A live stream, or a file where the server says how long it is."""
    source = NetworkSource(url, reconnect)
    if not source.whole:
        return source
    source.close()
    return RemoteFile(url, reconnect)
