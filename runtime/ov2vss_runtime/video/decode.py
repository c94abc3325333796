"""Decoding that goes on after damage, and a look through a file before it is decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ov2vss_runtime.video.containers import DISCONTINUOUS, packets, reason
from ov2vss_runtime.video.timeline import Timeline

HIDDEN = ("vp8", "vp9", "av1")
"""Codecs with packets that give no picture of their own."""
REORDERED = 32
"""Packets among which the first picture's may be, for the order in which they are stored."""
EARLIER = Fraction(1, 10)
"""Seconds by which sound may begin before the picture without counting as the beginning."""


@dataclass
class Damage:
    """What did not decode so far.

    Attributes:
        errors: packets that the decoder refused.
        broken: why the container could not be read to its end, or None.
        concealed: frames that came although something in them did not decode.
    """

    errors: int = 0
    broken: str | None = None
    concealed: int = 0


class Damaged(Exception):
    """Something did not decode, and several threads were at work: frames beside it are lost."""


def decoded(
    container: InputContainer, stream: VideoStream, damage: Damage, skip: int = 0, fast: bool = False
) -> Iterator[av.VideoFrame]:
    """The frames that decode, in the order in which they are shown; ``damage`` counts what does not.

    Args:
        container: at the place to begin at.
        stream: of it.
        damage: is brought up to date.
        skip: packets of the stream to leave out at first.
        fast: decode several frames at once. The frames before damage are those of slow decoding; then it ends.

    Raises:
        Damaged: with ``fast``, at the first thing that does not decode.
    """
    stream.thread_type = "AUTO" if fast else "SLICE"
    number = 0
    try:
        for packet in packets(container, stream):
            number += 1
            if number <= skip and packet.size:
                continue
            try:
                frames = packet.decode()
            except FFmpegError:
                if fast:
                    raise Damaged from None
                damage.errors += 1
                continue
            yield from frames  # type: ignore[misc]
    except FFmpegError as error:
        if fast:
            raise Damaged from None
        damage.broken = reason(error)
        with contextlib.suppress(FFmpegError):
            yield from stream.codec_context.decode(None)  # what the decoder still holds


@dataclass(frozen=True)
class Survey:
    """What the packets of a file say.

    Attributes:
        packets: video packets that should give a picture.
        absent: frames that the file's index lists beyond its packets.
        first: earliest timestamp at the beginning, in ticks of the video; None where there are none.
        last: where the last frame belongs, in ticks from the beginning.
        last_key: timestamp of the last key frame, and ``last_key_number`` the packets before it.
        jumps: how often the clock jumps.
        sound: when each audio stream begins, in seconds, by the stream's index.
    """

    packets: int = 0
    absent: int = 0
    first: int | None = None
    last: int = 0
    last_key: int | None = None
    last_key_number: int = 0
    jumps: int = 0
    sound: dict[int, Fraction] = field(default_factory=dict)

    def origin(self, container: InputContainer, time_base: Fraction, shown: int | None) -> int | None:
        """The timestamp that becomes 0, in ticks of ``time_base``.

        The first picture's; where a format's clock is its own (not that of MPEG-TS and its like), the first packet's,
        which may be damaged. Sound that begins earlier by more than a moment comes first.

        Args:
            container: the file.
            time_base: seconds per tick of the video.
            shown: timestamp of the first frame that decodes.
        """
        free = bool(int(container.format.flags) & DISCONTINUOUS)
        start = shown if free or self.first is None or shown is None else min(shown, self.first)
        if start is None or not self.sound:
            return start
        sound = min(self.sound.values())
        return round(sound / time_base) if sound < start * time_base - EARLIER else start


def survey(container: InputContainer, stream: VideoStream, step: int) -> Survey:
    """Read a file's packets without decoding them.

    Args:
        container: at its beginning.
        stream: the video in it.
        step: nominal duration of a frame in ticks.
    """
    line = Timeline(
        Fraction(stream.time_base or 1), step, jumps_forward=bool(int(container.format.flags) & DISCONTINUOUS)
    )
    audio = [s for s in container.streams.audio if s.codec_context is not None]
    sound: dict[int, Fraction] = {}
    runs: list[list[tuple[int, int]]] = [[]]
    unstamped = seen = number = last_key_number = 0
    last_key: int | None = None
    before: int | None = None
    with contextlib.suppress(FFmpegError):
        for packet in packets(container, stream, *audio):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0:
                continue
            if packet.stream_index != stream.index:
                if stamp is not None and not packet.is_discard and packet.stream_index not in sound:
                    sound[packet.stream_index] = stamp * packet.time_base
                continue
            if packet.is_keyframe:
                last_key, last_key_number = stamp, number
            number += 1
            if packet.is_discard:
                continue
            seen += 1
            if stamp is None:
                unstamped += packet.duration or step
                continue
            if packet.dts is not None:
                if before is not None and packet.dts <= before - line.tolerance:
                    runs.append([])
                before = packet.dts
            runs[-1].append((stamp, packet.duration or step))
    last = max(0, unstamped - step)
    for run in runs:
        for stamp, duration in sorted(run):
            last = line.place(stamp, duration)
    listed = len(getattr(stream, "index_entries", ()))
    indexed = "mp4" in container.format.name or "mov" in container.format.name
    first = min((stamp for stamp, _ in runs[0][:REORDERED]), default=None)
    return Survey(
        packets=seen,
        absent=max(0, listed - number) if indexed else 0,
        first=first,
        last=last,
        last_key=last_key,
        last_key_number=last_key_number,
        jumps=line.jumps,
        sound=sound,
    )
