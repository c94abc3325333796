"""Labelled video out, through PyAV: timestamps, size and audio are those of the source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import Colorspace

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.file import reason
from ov2vss_runtime.video.source import Source

# Fragmented, so that an unfinished file plays; the header is written with the first fragment, so that it can hold the
# offsets of the copied audio.
MP4_FLAGS = "frag_keyframe+delay_moov+default_base_moof"
FRAGMENT = 1
"""Seconds of video, by its timestamps, that a fragment holds: a killed run loses the last one."""
MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


class VideoWriter:
    """H.264 in a fragmented mp4 with the timestamps and the audio of a source.

    The file grows as ``<name>.part.mp4`` and takes its name when :meth:`close` is called; used as a context manager it
    keeps the unfinished file, playable and recognisable, if an error ends the block.

    Args:
        path: output, ``*.mp4``.
        source: reader whose size, time base and audio are taken.
        copy_audio: also copy the source's audio streams without re-encoding.
        size: (h, w) of the pictures, if that is not the source's.
    """

    def __init__(
        self, path: str | Path, source: Source, copy_audio: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        self.path = Path(path)
        height, width = size or (source.height, source.width)
        self.part = self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")
        self.notices: list[str] = []
        if self.path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise VideoError(f"{self.path} does not end in .mp4", "name the output like result.mp4")
        if isinstance(source.path, Path) and self.path.resolve() == source.path.resolve():
            raise VideoError(f"{self.path} is the source itself", "choose another --out")
        try:
            self._sink = _Sink(self.part)
            self.container = av.open(self._sink, "w", format="mp4", options={"movflags": MP4_FLAGS})
        except (OSError, FFmpegError) as error:
            raise VideoError(f"{self.path} cannot be written ({reason(error)})", "choose another --out") from None
        rate = source.rate
        self.stream = self.container.add_stream("libx264", rate=rate)
        self.stream.width, self.stream.height = width, height
        even = width % 2 == 0 and height % 2 == 0
        self.stream.pix_fmt = "yuv420p" if even else "yuv444p"
        if not even:
            self.notices.append(f"{width}x{height} has an odd side: written as H.264 4:4:4")
        codec = self.stream.codec_context
        self.stream.time_base = codec.time_base = source.time_base
        codec.gop_size = max(1, round(rate))
        codec.max_b_frames = 0
        codec.sample_aspect_ratio = source.pixel_aspect
        self._matrix = Colorspace.ITU709 if source.bt709 else Colorspace.ITU601
        codec.colorspace = codec.color_primaries = codec.color_trc = 1 if source.bt709 else 6
        codec.color_range = 1  # 16..235
        # No look-ahead: what was written is in the file but for the frames of the last fragment.
        self.stream.options = {"crf": "20", "preset": "veryfast", "rc-lookahead": "0", "forced-idr": "1"}
        self._key: int | None = None
        self._audio_source = source.audio() if copy_audio else None
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
            frame = frame.reformat(format=self.stream.pix_fmt, dst_colorspace=self._matrix)
            frame.pts, frame.time_base = pts, self.stream.codec_context.time_base
            if self._key is None or (pts - self._key) * frame.time_base >= FRAGMENT:
                self._key, frame.pict_type = pts, PictureType.I
            for packet in self.stream.encode(frame):
                self.container.mux(packet)
        except (OSError, FFmpegError) as error:
            raise VideoError(
                f"{self.part} cannot be written ({reason(error)})", "free some space or choose another --out"
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
                f"{self.part} cannot be written ({reason(error)})", "free some space or choose another --out"
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
