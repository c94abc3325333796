"""Whether the frames in the middle of a video file can be found without decoding what is before them.

Nothing is guessed from the kind of the file: its packets are read once, and every place that a chunk would seek to is
tried and compared with them. A decoder may begin at a packet that needs none before it: any of a codec that has no
other, a key frame of the older codecs, an IDR or CRA picture of H.264 and HEVC (what follows their other key frames may
look back beyond them). Frames are numbered by the order of their timestamps: these have to be there, to differ, and not
to jump.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ov2vss_runtime.video.containers import find_video, open_container
from ov2vss_runtime.video.containers import packets as demuxed
from ov2vss_runtime.video.decode import HIDDEN, Survey

KEYED = ("mpeg1video", "mpeg2video", "mpeg4", "h263", "h263p", "flv1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "theora")
"""Codecs whose frames from a key frame on, in the order of their timestamps, need nothing before it."""
IDR = {"h264": {5}, "hevc": {16, 17, 18, 19, 20, 21}}
"""Types of NAL units at which decoders may begin."""
COMPARED = 64
"""Packets after a seek that are compared with those of the whole file."""
TRIES = 4
"""Places to seek to before one is given up."""
FARTHEST = 2000
"""Packets that a seek may lead before the one that was meant."""


@dataclass(frozen=True)
class Entry:
    """A video packet: its timestamps in ticks, bytes, whether it is hidden, and whether a decoder may begin with it."""

    pts: int | None
    dts: int | None
    size: int
    hidden: bool
    begins: bool

    def same(self, other: Entry) -> bool:
        return (self.pts, self.size) == (other.pts, other.size)


@dataclass(frozen=True)
class Place:
    """Where to begin reading: ``seek`` to this timestamp, leave ``skip`` packets out; the next is number ``packet``."""

    seek: int
    skip: int
    packet: int


class PacketTable:
    """The video packets of a file.

    Args:
        path: of it.

    Attributes:
        stamps: timestamps of the frames, in their order, in ticks.
        doubt: why nothing in the middle can be found; empty where it can.
    """

    def __init__(self, path: str, survey: Survey) -> None:
        self.path = path
        with open_container(path) as container:
            stream = find_video(container, path)
            self.codec = stream.codec_context.codec.canonical_name
            self.entries = list(self._read(container, stream))
            intra = stream.codec_context.codec.intra_only
        self.stamps = sorted(entry.pts for entry in self.entries if entry.pts is not None)
        self.doubt = self._doubt(survey, intra)
        self._begins = [
            (entry.pts, number) for number, entry in enumerate(self.entries) if entry.begins and entry.pts is not None
        ]

    def _read(self, container: InputContainer, stream: VideoStream) -> Iterator[Entry]:
        codec = stream.codec_context.codec
        wanted = IDR.get(codec.canonical_name)
        length = length_size(stream)
        with contextlib.suppress(FFmpegError):
            for packet in demuxed(container, stream):
                if packet.size == 0:
                    continue
                begins = packet.is_keyframe
                if begins and wanted is not None:
                    begins = bool(nal_types(bytes(packet), length, codec.canonical_name) & wanted)
                yield Entry(packet.pts, packet.dts, packet.size, packet.is_discard, begins)

    def _doubt(self, survey: Survey, intra: bool) -> str:
        if self.codec in HIDDEN:
            return f"packets of {self.codec} need not hold one frame each"
        if not intra and self.codec not in (*KEYED, *IDR):
            return f"where {self.codec} may be begun is not known"
        if any(entry.pts is None for entry in self.entries):
            return "packets have no timestamps"
        if len(set(self.stamps)) != len(self.stamps):
            return "frames have the same timestamp"
        if any(entry.hidden for entry in self.entries):
            return "an edit list hides packets"
        if survey.jumps:
            return "its clock jumps"
        if survey.absent or survey.packets != len(self.entries):
            return "its index lists frames that are not there"
        return ""

    def place(self, stamp: int) -> Place | str:
        """Where to begin for all frames from a timestamp on, or why there is no such place."""
        at = bisect_right(self._begins, (stamp, len(self.entries)))
        candidates = self._begins[max(0, at - TRIES) : at][::-1]
        if not candidates:
            return "no key frame is before it"
        _, number = candidates[0]
        # What is stored after the key frame and shown before it may look back: those frames must not be asked for.
        for _, target in candidates:
            for seek in dict.fromkeys((self.entries[target].pts, self.entries[target].dts)):
                if seek is not None and (skip := self._tried(seek, number)) is not None:
                    return Place(seek, skip, number)
        return "seeking does not lead to its key frames"

    def _tried(self, seek: int, number: int) -> int | None:
        """Packets from where a seek leads to packet ``number``, if what follows is what follows in the whole file."""
        wanted = self.entries[number : number + COMPARED]
        with open_container(self.path) as container, contextlib.suppress(FFmpegError):
            stream = find_video(container, self.path)
            container.seek(seek, stream=stream)
            found = (Entry(p.pts, p.dts, p.size, False, False) for p in demuxed(container, stream) if p.size)
            for skip, entry in enumerate(islice(found, FARTHEST)):
                if entry.same(wanted[0]):
                    rest = [entry, *islice(found, len(wanted) - 1)]
                    same = len(rest) == len(wanted) and all(a.same(b) for a, b in zip(rest, wanted, strict=True))
                    return skip if same else None
        return None


def length_size(stream: VideoStream) -> int:
    """Bytes of the length in front of each NAL unit; 0 where start codes are between them."""
    extra = stream.codec_context.extradata
    if not extra or extra[0] != 1:
        return 0
    at = 21 if stream.codec_context.codec.canonical_name == "hevc" else 4
    return (extra[at] & 3) + 1 if len(extra) > at else 0


def nal_types(data: bytes, length: int, codec: str) -> set[int]:
    """Types of the NAL units of a packet."""
    headers: list[int] = []
    if length:
        at = 0
        while at + length < len(data):
            headers.append(data[at + length])
            at += length + int.from_bytes(data[at : at + length], "big")
    else:
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            headers.append(data[at + 3])
            at = data.find(b"\0\0\1", at + 3)
    return {(header >> 1) & 63 if codec == "hevc" else header & 31 for header in headers}
