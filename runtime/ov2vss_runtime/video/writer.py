"""Labelled video out, through PyAV: timestamps, size and audio are those of the source."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import Colorspace

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.containers import reason
from ov2vss_runtime.video.sink import Sink
from ov2vss_runtime.video.sound import Sound
from ov2vss_runtime.video.source import Source

# Fragmented, so that an unfinished file plays; the header is written with the first fragment, so that it can hold the
# offsets of the copied audio.
MP4_FLAGS = "frag_keyframe+delay_moov+default_base_moof"
FRAGMENT = 1
"""Seconds of video, by its timestamps, that a fragment holds: a killed run loses the last one."""
LONGEST_SIDE = 16384
"""Pixels; libx264 takes no more."""


class VideoWriter:
    """H.264 in a fragmented mp4 with the timestamps and the audio of a source.

    The file grows as ``<name>.part.mp4`` and takes its name when :meth:`close` is called; used as a context manager it
    keeps the unfinished file, playable and recognisable, if an error ends the block. The audio ends where the source
    does, or with the picture where the source was not read to its end.

    Args:
        path: output, ``*.mp4``.
        source: reader whose size, time base and audio are taken.
        copy_audio: also take the source's audio streams (see :class:`ov2vss_runtime.video.sound.Sound`).
        size: (h, w) of the pictures, if that is not the source's.

    Attributes:
        frames: that were written.
        notices: what differs from the source, in whole sentences.

    Raises:
        VideoError: it cannot be written there, or H.264 has no pictures of this size.
    """

    def __init__(
        self, path: str | Path, source: Source, copy_audio: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        self.path = Path(path)
        height, width = size or (source.height, source.width)
        self.part = self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")
        self.notices: list[str] = []
        if self.path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise VideoError(f"{self.path} does not end in .mp4", "name the output like result.mp4", usage=True)
        if isinstance(source.path, Path) and self.path.resolve() == source.path.resolve():
            raise VideoError(f"{self.path} is the source itself", "choose another --out")
        if max(height, width) > LONGEST_SIDE:
            raise VideoError(
                f"{self.path} cannot be H.264: its pictures would be {width}x{height}, "
                f"and the encoder takes at most {LONGEST_SIDE} a side",
                "scale the source down, leave --side-by-side out, or write --masks and --jsonl with --no-video",
            )
        try:
            self._sink = Sink(self.part)
            self.container = av.open(self._sink, "w", format="mp4", options={"movflags": MP4_FLAGS})
        except (OSError, FFmpegError) as error:
            raise VideoError(f"{self.path} cannot be written ({reason(error)})", "choose another --out") from None
        rate = source.rate
        # Players crop nothing and few of them play 4:4:4: an odd side gets its last row or column twice.
        self._padding = (height % 2, width % 2)
        self.stream = self.container.add_stream("libx264", rate=rate)
        self.stream.width, self.stream.height = width + width % 2, height + height % 2
        self.stream.pix_fmt = "yuv420p"
        if any(self._padding):
            self.notices.append(
                f"{width}x{height} has an odd side: the video is {self.stream.width}x{self.stream.height}, "
                "its last row or column repeated"
            )
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
        self._source, self._sound = source, Sound(self.container, source) if copy_audio else None
        self.notices += self._sound.notices if self._sound is not None else []
        self._end = Fraction(0)
        self.frames = 0

    def write(self, rgb: npt.NDArray[np.uint8], pts: int) -> None:
        """Encode one RGB frame ``[h, w, 3]`` shown at ``pts`` (source time base)."""
        time = pts * self._source.time_base
        try:
            if self._sound is not None:
                self._sound.write(time)
            if any(self._padding):
                rgb = cv2.copyMakeBorder(rgb, 0, self._padding[0], 0, self._padding[1], cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format=self.stream.pix_fmt, dst_colorspace=self._matrix)
            frame.pts, frame.time_base = pts, self.stream.codec_context.time_base
            if self._key is None or (pts - self._key) * frame.time_base >= FRAGMENT:
                self._key, frame.pict_type = pts, PictureType.I
            for packet in self.stream.encode(frame):
                self.container.mux(packet)
        except (OSError, FFmpegError) as error:
            raise self._failed(error) from None
        self._end = max(self._end, time + 1 / self._source.rate)
        self.frames += 1

    def _failed(self, error: Exception) -> VideoError:
        """The cause: the place that is written to, or else what FFmpeg says."""
        if self._sink.error is not None:
            cause = reason(self._sink.error)
            return VideoError(f"{self.part} cannot be written ({cause})", "free some space or choose another --out")
        return VideoError(
            f"FFmpeg cannot write {self.part} ({reason(error)})",
            "report this with the source; --masks and --jsonl work with --no-video",
        )

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._finish(sound=True)
        self.part.replace(self.path)

    def _finish(self, sound: bool) -> None:
        try:
            for packet in self.stream.encode(None):
                self.container.mux(packet)
            if self._sound is not None and sound:
                whole = getattr(self._source, "ended", True)
                self._sound.write(None if whole else self._end, final=True)
                self._sound.finish()
            self.container.close()
            self._sink.close()
        except (OSError, FFmpegError) as error:
            raise self._failed(error) from None
        finally:
            if self._sound is not None:
                self._sound.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Exception):
            self._finish(sound=False)
        if self.frames == 0:
            self.part.unlink(missing_ok=True)
