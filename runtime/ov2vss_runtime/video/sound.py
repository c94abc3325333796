"""A source's sound beside its labelled picture: copied where mp4 holds it, else encoded as AAC; it stops no run."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream

from ov2vss_runtime.video.containers import packets, reason
from ov2vss_runtime.video.encoded_sound import EncodedTrack
from ov2vss_runtime.video.source import Source
from ov2vss_runtime.video.timeline import FollowedClock, Timeline

log = logging.getLogger("ov2vss.runtime")

COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
"""Codecs that players expect in mp4. FFmpeg's muxer takes more (Vorbis, DTS), which few of them play."""
PRIMING = Fraction(1, 20)
"""Seconds before the beginning that a decoder may need to start with; what lies farther back was cut off."""
LATE_SOUND = 1.0
"""Seconds after which a stream may begin too late for a header that needs its first packet."""
INTERLEAVED_SECONDS = 1
"""Seconds by which one stream of a file may be ahead of another."""


class Track(Protocol):
    """Takes the packets of one audio stream, whose timestamps are those of the output."""

    def take(self, packet: av.Packet) -> None: ...

    def finish(self) -> None: ...


class Sound:
    """The audio streams of a source, written up to where the picture is.

    Times are those of the picture: its beginning, and its jumps. What was cut off before the beginning stays out.

    Args:
        output: container that is written.
        source: whose audio is taken.

    Attributes:
        notices: which streams are changed or left out, and why.
    """

    def __init__(self, output: OutputContainer, source: Source) -> None:
        self.notices: list[str] = []
        self._output, self._input = output, source.audio()
        self._line: Timeline = getattr(source, "timeline", None) or Timeline(source.time_base, 1, 0)
        self._source = source
        self._tracks: dict[int, Track] = {}
        self._clocks: dict[int, FollowedClock] = {}
        self._cut: dict[int, bool] = {}
        self._packets: Iterator[av.Packet] = iter(())
        self._pending: av.Packet | None = None
        self._closed = False
        if self._input is None:
            return
        sounding: dict[int, float] | None = getattr(source, "sounding", None)
        for number, stream in enumerate(self._input.streams.audio, 1):
            track = self._track(stream, f"audio track {number}", sounding)
            if track is not None:
                self._tracks[stream.index] = track
        if self._tracks:
            self._packets = packets(self._input, *(self._input.streams[i] for i in self._tracks))

    def _track(self, stream: av.AudioStream, name: str, sounding: dict[int, float] | None) -> Track | None:
        context = stream.codec_context
        if context is None:
            self.notices.append(f"{name} has a codec that FFmpeg does not know and is left out")
            return None
        if sounding is not None and stream.index not in sounding:
            self.notices.append(f"{name} is empty and is left out")
            return None
        codec = context.codec.canonical_name
        # The header of a file in which such a stream has nothing yet would be invalid.
        waits = codec in ("ac3", "eac3") or (codec == "aac" and not context.extradata)
        late = waits and sounding is not None and sounding[stream.index] > LATE_SOUND
        if codec in COPIED and not late and _mp4_takes(stream):
            return CopiedTrack(self._output, stream, codec)
        try:
            track = EncodedTrack(self._output, stream)
        except (FFmpegError, ValueError, OSError) as error:
            self.notices.append(f"{name} ({codec}) cannot be encoded for mp4 and is left out ({reason(error)})")
            return None
        why = "begins too late to be copied into mp4" if late else "does not fit into mp4"
        self.notices.append(f"{name} ({codec}) {why}: encoded as AAC")
        return track

    def write(self, until: Fraction | None, final: bool = False) -> None:
        """Mux the sound up to a time in seconds (all that is left for None), so that the file interleaves.

        Args:
            until: seconds from the beginning.
            final: no more picture will come.
        """
        while not self._closed:
            if self._pending is None and (packet := self._next()) is not None:
                self._pending = packet
            if (packet := self._pending) is None:
                return
            index, base = packet.stream_index, packet.time_base
            if index not in self._clocks:
                # The picture's line is known once its first frame has come.
                self._clocks[index] = FollowedClock(self._source_line(), base)
            stamp = int(packet.pts if packet.pts is not None else packet.dts or 0)
            place = self._clocks[index].place(stamp, final)
            if place is None:
                return
            if until is not None and place * base > until:
                if not final or place * base > until + INTERLEAVED_SECONDS:
                    return
                self._pending = None  # another track may still have something to say
                continue
            self._clocks[index].accept(place, packet.duration or 0)
            self._pending = None
            if not self._belongs(packet, place):
                continue
            shift = place - stamp
            packet.pts, packet.dts = place, (packet.dts if packet.dts is not None else stamp) + shift
            self._give(index, packet)

    def _source_line(self) -> Timeline:
        return getattr(self._source, "timeline", None) or self._line

    def _next(self) -> av.Packet | None:
        try:
            for packet in self._packets:
                if packet.size and (packet.pts is not None or packet.dts is not None):
                    return packet
        except FFmpegError as error:
            log.warning("the sound breaks off (%s)", reason(error))
        return None

    def _belongs(self, packet: av.Packet, place: int) -> bool:
        """Whether a packet is part of what was recorded and not cut off."""
        index, start = packet.stream_index, place * packet.time_base
        before = place + (packet.duration or 0) <= 0 or (packet.is_discard and start < 0)
        if start < -PRIMING and before:
            self._cut[index] = True
        if packet.is_discard and start >= 0:
            return False
        return not before or (start >= -PRIMING and not self._cut.get(index, False))

    def _give(self, index: int, packet: av.Packet) -> None:
        try:
            self._tracks[index].take(packet)
        except FFmpegError as error:
            end = float((packet.pts or 0) * packet.time_base)
            log.warning("an audio track ends at %.1f s (%s)", end, reason(error))
            self._drop(index)

    def _drop(self, index: int) -> None:
        assert self._input is not None
        del self._tracks[index]
        self._closed = not self._tracks

    def finish(self) -> None:
        """Flush what encoders hold; nothing can be written afterwards."""
        for index in list(self._tracks):
            try:
                self._tracks[index].finish()
            except FFmpegError as error:
                log.warning("the end of an audio track is lost (%s)", reason(error))
        self._closed = True

    def close(self) -> None:
        """Close the container that was read."""
        self._closed = True
        if self._input is not None:
            self._input.close()


class CopiedTrack:
    """Packets as they are, but for ADTS headers, which mp4 does not have.

    Args:
        output: container that is written.
        stream: of the source.
        codec: its canonical name.
    """

    def __init__(self, output: OutputContainer, stream: av.AudioStream, codec: str) -> None:
        self._output, self._stream = output, output.add_stream_from_template(stream)
        bare = codec == "aac" and not stream.codec_context.extradata
        self._filter = BitStreamFilterContext("aac_adtstoasc", stream) if bare else None
        self._last: int | None = None

    def take(self, packet: av.Packet) -> None:
        if self._filter is None:
            self._mux(packet)
            return
        try:
            filtered = self._filter.filter(packet)
        except FFmpegError:
            return  # a damaged header: this packet alone is lost
        for part in filtered:
            self._mux(part)

    def _mux(self, packet: av.Packet) -> None:
        if self._last is not None and packet.dts is not None and packet.dts <= self._last:
            return  # twice the same moment: the muxer would refuse it
        self._last = packet.dts
        packet.stream = self._stream
        self._output.mux(packet)

    def finish(self) -> None: ...


def _mp4_takes(stream: Stream) -> bool:
    """Whether FFmpeg's muxer begins a file with this stream."""
    trial = av.open(io.BytesIO(), "w", format="mp4", options={"movflags": "frag_keyframe+delay_moov"})
    try:
        trial.add_stream_from_template(stream)
        trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    finally:
        with contextlib.suppress(FFmpegError):
            trial.close()
    return True
