"""Video files in, through PyAV."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

from av.container import InputContainer
from av.error import FFmpegError

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.colours import is_bt709, writes_bt709
from ov2vss_runtime.video.containers import DISCONTINUOUS, REPAIR, find_video, open_container, reason
from ov2vss_runtime.video.decode import HIDDEN, Damage, Damaged, Survey, decoded, survey
from ov2vss_runtime.video.pictures import Pictures, to_rgb
from ov2vss_runtime.video.source import VideoFrame
from ov2vss_runtime.video.timeline import Timeline

__all__ = ["VideoReader", "is_bt709", "reason", "to_rgb"]

log = logging.getLogger("ov2vss.runtime")

FASTEST_RATE = 1000
"""Frames a second that are believed; some files only know the ticks of their clock."""
FIELDS = 2
"""By how much the numbers of first and second fields may differ."""


class VideoReader:
    """The frames of a video file, in order; a :class:`ov2vss_runtime.video.source.Source`.

    Opening reads the container once without decoding more than the first picture. Frames are upright (rotated and
    mirrored as the metadata says), 8-bit RGB, of the first one's size; their timestamps begin at 0 and rise. What does
    not decode is left out and counted, and said at the end; transparency is ignored, and that is said too.

    Args:
        path: a file that FFmpeg can read.
        known: the :attr:`survey` of an earlier reader of this very file, so that it is not read through again.

    Attributes:
        survey: what the packets say.
        frames: how many its packets should give.
        pixel_aspect: width of a pixel over its height; 1 but for anamorphic video.
        bt709: whether colours are coded by BT.709 (else BT.601).
        missing: frames that are listed or stored and did not come out, as far as it was read.
        sounding: when each audio stream begins that holds anything, in seconds, by its index.
        ended: the last iteration has come to the end of the file.
        notices: what was said about it, in whole sentences.
        timeline: of the last iteration, for streams that follow the picture.

    Raises:
        VideoError: no such file, no video in it, or not one frame of it decodes.
    """

    live = False

    def __init__(self, path: str | Path, known: Survey | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.notices: list[str] = []
        self.missing, self.ended = 0, False
        if not self.path.exists():
            raise VideoError(f"{self.path} does not exist", "check the path")
        if self.path.is_dir():
            raise VideoError(f"{self.path} is a folder", "give a video file")
        if not (self.path.is_file() or self.path.is_block_device()):
            raise VideoError(
                f"{self.path} is a pipe or a device, and a video is read several times",
                "give a file; raw frames on a pipe go through -, and a camera has a number",
            )
        with self._open() as container:
            stream = find_video(container, self.path)
            self.time_base = Fraction(stream.time_base or 1)
            rate = stream.average_rate or stream.base_rate
            self.rate: Fraction = rate if rate is not None and 0 < rate <= FASTEST_RATE else Fraction(25)
            self._step = max(1, round(1 / (self.rate * self.time_base)))
            self._free_clock = bool(int(container.format.flags) & DISCONTINUOUS)
            self._hidden = stream.codec_context.codec.canonical_name in HIDDEN
            self.has_audio = bool(container.streams.audio)
            self.survey = known or survey(container, stream, self._step)
        self.frames = self.survey.packets
        if stream.metadata.get("alpha_mode") == "1":  # in WebM it is a picture of its own, which is not decoded
            self._say(f"{self.path}: transparency is ignored")
        self.timeline = Timeline(self.time_base, self._step)
        self._look_at_first_picture()
        self.timeline = self._new_timeline()
        start = (self._origin or 0) * self.time_base
        self.sounding = {index: float(time - start) for index, time in self.survey.sound.items()}

    def _look_at_first_picture(self) -> None:
        """Size, pixel aspect, colours and beginning, from the first frame that decodes."""
        pictures = Pictures(self.path, lambda _: None)
        with self._open() as container:
            stream = find_video(container, self.path)
            for frame in decoded(container, stream, Damage()):
                with contextlib.suppress(FFmpegError, ValueError):
                    pictures(frame, stream.sample_aspect_ratio)
                    break
            else:
                raise VideoError(f"{self.path} has no frame that can be decoded", REPAIR)
            self._origin = self.survey.origin(container, self.time_base, frame.pts)
            matrix = frame.colorspace if frame.colorspace != 2 else stream.codec_context.colorspace
            self.bt709 = pictures.tone_mapped or writes_bt709(matrix, frame.height)
        self.height, self.width, self.pixel_aspect = pictures.height, pictures.width, pictures.pixel_aspect

    def _open(self) -> InputContainer:
        return open_container(self.path)

    def _new_timeline(self) -> Timeline:
        return Timeline(self.time_base, self._step, self._origin, self._free_clock)

    def _say(self, message: str) -> None:
        if message not in self.notices:
            self.notices.append(message)
            log.warning("%s", message)

    def __iter__(self) -> Iterator[VideoFrame]:
        self.timeline = self._new_timeline()
        self.ended, self.missing = False, 0
        damage, count = Damage(), 0
        for frame in self._decode_all(damage):
            self.missing = damage.errors
            yield frame
            count += 1
        self.missing = self._count_missing(damage, count)
        self.ended = True
        if count == 0:
            raise VideoError(f"{self.path} has no frame that can be decoded", REPAIR)
        if self.missing:
            why = f" ({damage.broken})" if damage.broken else ""
            whole = count + self.missing
            self._say(f"{self.path} is damaged{why}: {self.missing} of {whole} frames are missing; {REPAIR}")

    def _count_missing(self, damage: Damage, count: int) -> int:
        if self._hidden:
            return damage.errors + self.survey.absent
        missing = max(0, self.survey.packets + self.survey.absent - count)
        if damage.errors or damage.broken or self.survey.absent:
            return missing
        # Without an error: pictures before the first key frame, or packets that hold one field each.
        return 0 if missing >= count - FIELDS else missing

    def _decode_all(self, damage: Damage) -> Iterator[VideoFrame]:
        """All frames: with all threads up to the first damage, then frame by frame, for none to be lost beside it."""
        done = 0
        try:
            with self._open() as container:
                for frame in self._decode(container, Damage(), self.timeline, self._say, fast=True):
                    yield frame
                    done += 1
        except Damaged:
            with self._open() as container:
                yield from self._decode(container, damage, self.timeline, self._say, done=done)

    def _decode(
        self,
        container: InputContainer,
        damage: Damage,
        timeline: Timeline,
        say: Callable[[str], None],
        skip: int = 0,
        done: int = 0,
        fast: bool = False,
    ) -> Iterator[VideoFrame]:
        """Frames from the container's position, in the size and shape of the first of the file.

        Left out are the first ``skip`` packets and the first ``done`` frames.
        """
        stream = find_video(container, self.path)
        pictures = Pictures(self.path, say)
        pictures.height, pictures.width, pictures.pixel_aspect = self.height, self.width, self.pixel_aspect
        declared, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
        try:
            for frame in islice(decoded(container, stream, damage, skip, fast), done, None):
                damage.concealed += bool(frame.is_corrupt)
                now = stream.codec_context.sample_aspect_ratio
                try:
                    rgb = pictures(frame, declared if now == coded else now)
                except (FFmpegError, ValueError):
                    damage.errors += 1
                    continue
                pts = timeline.place(frame.pts, getattr(frame, "duration", None))
                yield VideoFrame(rgb, pts, timeline.seconds(pts))
        except MemoryError:
            raise VideoError(f"the frames of {self.path} need more memory than there is", "scale it down") from None

    def part(self, seek: int, skip: int, damage: Damage) -> Iterator[VideoFrame]:
        """Frames from a place in the middle on, decoded with all threads, with the timestamps that they have in the
        whole: of files whose clock does not jump. Whether these are the right ones is for the caller to check.

        Args:
            seek: timestamp in ticks of the file, to seek to.
            skip: packets of the video to leave out from there.
            damage: is brought up to date.

        Raises:
            Damaged: something does not decode.
        """
        with self._open() as container:
            container.seek(seek, stream=find_video(container, self.path))
            yield from self._decode(container, damage, self._new_timeline(), lambda _: None, skip, fast=True)

    @property
    def origin(self) -> int | None:
        """The timestamp in the file that became 0; None without timestamps."""
        return self._origin

    def last_frame(self) -> VideoFrame:
        """The last frame that really decodes."""
        known, tail = self.survey, deque[VideoFrame](maxlen=1)
        quiet: Callable[[str], None] = lambda _: None  # noqa: E731
        if known.last_key is not None and not known.jumps:
            with self._open() as container, contextlib.suppress(FFmpegError, VideoError):
                container.seek(known.last_key, stream=find_video(container, self.path))
                tail.extend(self._decode(container, Damage(), self._new_timeline(), quiet))
            if tail:
                return tail[0]
        for skip in (known.last_key_number, 0):
            # Without a clock to seek by, packets are counted; with damage at the end, everything is decoded.
            with self._open() as container, contextlib.suppress(FFmpegError):
                tail.extend(self._decode(container, Damage(), self._new_timeline(), quiet, skip))
            if tail:
                break
        if not tail:
            raise VideoError(f"{self.path} has no frame that can be decoded", REPAIR)
        return VideoFrame(tail[0].rgb, known.last, float(known.last * self.time_base))

    def audio(self) -> InputContainer | None:
        """The container once more, to take its audio from; None without any."""
        return self._open() if self.has_audio else None
