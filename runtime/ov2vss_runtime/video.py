"""Video files in and out through PyAV: timestamps, size and audio of the output are those of the source."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.preprocess import snap

# Fragmented, so that an unfinished file plays; the header is written with the first fragment, so that it can hold the
# offsets of the copied audio.
MP4_FLAGS = "frag_keyframe+delay_moov+default_base_moof"
MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame: ``rgb [h, w, 3]`` uint8, ``pts`` in units of the stream's time base, ``time`` in seconds."""

    rgb: npt.NDArray[np.uint8]
    pts: int
    time: float


class VideoReader:
    """The frames of a video file, in order.

    Opening reads the container once (without decoding) and refuses a file whose end is missing.

    Args:
        path: a file that FFmpeg can read.

    Raises:
        VideoError: no such file, not a video, or truncated.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
        self.height, self.width = first.rgb.shape[:2]

    def _open(self) -> InputContainer:
        try:
            container = av.open(str(self.path))
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.path} cannot be opened as a video ({_reason(error)})", "check that the file is complete"
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
            raise VideoError(f"{self.path} breaks off after {count} frames ({_reason(error)})", _REPAIR) from None
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
                yield VideoFrame(to_rgb(frame), pts, float(pts * self.time_base))
        except FFmpegError as error:
            raise VideoError(f"{self.path} cannot be decoded after frame {count} ({_reason(error)})", _REPAIR) from None
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

    def suggest_size(self, size: tuple[int, int]) -> str:
        """A ``--size`` with about the area of ``size`` and this video's aspect."""
        aspect = self.width / self.height
        height = (size[0] * size[1] / aspect) ** 0.5
        h, w = snap((round(height), round(height * aspect)))
        return f"{h}x{w}"


_REPAIR = "repair or re-download the file (for example: ffmpeg -i broken.mp4 -c copy repaired.mp4)"


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Decoded frame -> upright RGB ``[h, w, 3]`` uint8."""
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class VideoWriter:
    """H.264 in a fragmented mp4 with the timestamps and the audio of a source.

    The file grows as ``<name>.part.mp4`` and takes its name when :meth:`close` is called; used as a context manager it
    keeps the unfinished file, playable and recognisable, if an error ends the block.

    Args:
        path: output, ``*.mp4``.
        source: reader whose size, time base and audio are taken.
        copy_audio: also copy the source's audio streams without re-encoding.
    """

    def __init__(self, path: str | Path, source: VideoReader, copy_audio: bool = True) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")
        self.notices: list[str] = []
        if self.path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise VideoError(f"{self.path} does not end in .mp4", "name the output like result.mp4")
        if self.path.resolve() == source.path.resolve():
            raise VideoError(f"{self.path} is the source itself", "choose another --out")
        try:
            self._sink = _Sink(self.part)
            self.container = av.open(self._sink, "w", format="mp4", options={"movflags": MP4_FLAGS})
        except (OSError, FFmpegError) as error:
            raise VideoError(f"{self.path} cannot be written ({_reason(error)})", "choose another --out") from None
        rate = source.rate
        self.stream = self.container.add_stream("libx264", rate=rate)
        self.stream.width, self.stream.height = source.width, source.height
        even = source.width % 2 == 0 and source.height % 2 == 0
        self.stream.pix_fmt = "yuv420p" if even else "yuv444p"
        if not even:
            self.notices.append(f"{source.width}x{source.height} has an odd side: written as H.264 4:4:4")
        self.stream.time_base = self.stream.codec_context.time_base = source.time_base
        self.stream.codec_context.gop_size = max(1, round(rate))
        self.stream.codec_context.max_b_frames = 0
        self.stream.options = {"crf": "20", "preset": "veryfast"}
        self._audio_source = source._open() if copy_audio and source.has_audio else None
        self._audio: dict[int, av.AudioStream] = {}
        if self._audio_source is not None:
            for stream in self._audio_source.streams.audio:
                if stream.codec_context.name in MP4_AUDIO:
                    self._audio[stream.index] = self.container.add_stream_from_template(stream)
                else:
                    self.notices.append(f"{stream.codec_context.name} audio does not fit into mp4 and is left out")
        self._packets = self._audio_packets()
        self._pending = next(self._packets, None)
        self.frames = 0

    def write(self, rgb: npt.NDArray[np.uint8], pts: int) -> None:
        """Encode one RGB frame ``[h, w, 3]`` shown at ``pts`` (source time base)."""
        try:
            self._copy_audio(float(pts * self.stream.time_base) if self.frames else 0.0)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = pts, self.stream.codec_context.time_base
            for packet in self.stream.encode(frame):
                self.container.mux(packet)
        except (OSError, FFmpegError) as error:
            raise VideoError(
                f"{self.part} cannot be written ({_reason(error)})", "free some space or choose another --out"
            ) from None
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._finish()
        self.part.replace(self.path)

    def _finish(self) -> None:
        try:
            for packet in self.stream.encode(None):
                self.container.mux(packet)
            self._copy_audio(None)
            self.container.close()
            self._sink.close()
        except (OSError, FFmpegError) as error:
            raise VideoError(
                f"{self.part} cannot be written ({_reason(error)})", "free some space or choose another --out"
            ) from None
        finally:
            if self._audio_source is not None:
                self._audio_source.close()

    def _audio_packets(self) -> Iterator[av.Packet]:
        if not self._audio:
            return
        streams = [self._audio_source.streams[i] for i in self._audio]
        for packet in self._audio_source.demux(*streams):
            if packet.dts is not None:
                yield packet

    def _copy_audio(self, until: float | None) -> None:
        """Mux the audio packets up to a time in seconds (all that are left for None), so that the file interleaves."""
        while self._pending is not None:
            packet = self._pending
            if until is not None and float(packet.dts * packet.time_base) > until:
                return
            packet.stream = self._audio[packet.stream.index]
            self.container.mux(packet)
            self._pending = next(self._packets, None)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Exception):
            self._pending = None
            self._finish()
        if self.frames == 0:
            self.part.unlink(missing_ok=True)


class _Sink:
    """The file under the muxer. FFmpeg drops errors of its last, buffered writes; this keeps the first one.

    Args:
        path: opened for writing at once, so that an unwritable place is known before anything is decoded.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._error = self._error or error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Close the file; raises the first error of any write."""
        try:
            if self._error is None:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if self._error is not None:
            raise self._error


def _reason(error: Exception) -> str:
    if isinstance(error, FFmpegError):
        return error.strerror or type(error).__name__
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
