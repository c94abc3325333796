"""Frames in the middle of files: those that a chunk reads are those of the whole file, or the plan says why not."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ov2vss_runtime.batch.packets import PacketTable
from ov2vss_runtime.batch.planning import Planner, cuts
from ov2vss_runtime.batch.records import Job, Labelling, Model, Outputs, Packets, Span, load, run_lengths
from ov2vss_runtime.batch.work import Untrusted, checked
from ov2vss_runtime.video.file import VideoReader
from tests.conftest import moving_frames

COUNT, SIZE = 61, (48, 80)
STARTS = 25


def encoded(
    path: Path, codec: str = "libx264", pts: list[int] | None = None, base: Fraction = Fraction(1, 25), **options: str
) -> Path:
    container_options = {"use_editlist": "1"} if "editlist" in path.stem else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for index, rgb in enumerate(moving_frames(COUNT, SIZE)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = (pts or range(COUNT))[index], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def uneven() -> list[int]:
    """Timestamps in milliseconds at distances of 7 to 90."""
    rng = random.Random(3)
    times = [0]
    for _ in range(COUNT - 1):
        times.append(times[-1] + rng.randint(7, 90))
    return times


def cut_off(path: Path, source: Path) -> Path:
    """The file from frame 17 on, by an edit list: the packets before it stay, from a key frame on, and are hidden."""
    with av.open(str(source)) as given, av.open(str(path), "w", options={"use_editlist": "1"}) as taken:
        stream = given.streams.video[0]
        copy = taken.add_stream_from_template(stream)
        step = round(1 / (25 * stream.time_base))
        for packet in given.demux(stream):
            if packet.size and packet.pts is not None and packet.pts >= 12 * step:
                packet.pts, packet.dts = packet.pts - 17 * step, packet.dts - 17 * step
                packet.stream = copy
                taken.mux(packet)
    return path


GOP = {"g": "12", "sc_threshold": "0"}
FILES = {
    "closed.mp4": lambda path: encoded(path, **GOP, bf="3"),
    "closed.mkv": lambda path: encoded(path, **GOP, bf="3"),
    "open.mp4": lambda path: encoded(
        path, **{"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"}
    ),
    "refresh.mp4": lambda path: encoded(path, **{"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "stream.ts": lambda path: encoded(path, **GOP, bf="2"),
    "open.ts": lambda path: encoded(path, "mpeg2video", g="12", bf="2", b="500k"),
    "uneven.mp4": lambda path: encoded(path, pts=uneven(), base=Fraction(1, 1000), **GOP, bf="2"),
    "uneven.mkv": lambda path: encoded(path, pts=uneven(), base=Fraction(1, 1000), **GOP, bf="0"),
    "pictures.avi": lambda path: encoded(path, "mjpeg"),
    "simple.avi": lambda path: encoded(path, "mpeg4", g="12"),
    "bframes.avi": lambda path: encoded(path, "mpeg4", g="12", bf="2"),
    "editlist.mp4": lambda path: cut_off(path, encoded(path.with_name("long.mp4"), **GOP, bf="2")),
    "hidden.webm": lambda path: encoded(path, "libvpx-vp9", deadline="realtime", **{"cpu-used": "8"}),
    "field.mov": lambda path: encoded(path, "mjpeg"),
}
WHOLE = {
    "editlist.mp4": "edit list",
    "hidden.webm": "one frame each",
}
"""What is one job, and why."""


def span_of(table: PacketTable, reader: VideoReader, start: int, overlap: int, stop: int) -> Span | str:
    place = table.place(table.stamps[start - overlap])
    if isinstance(place, str):
        return place
    stamps = table.stamps[start - overlap : stop]
    return Span(
        start=start, stop=stop, overlap=overlap, seek=place.seek, skip=place.skip, first=stamps[0],
        steps=run_lengths(stamps), first_time=0.0, last_time=float(reader.survey.last * reader.time_base),
    )  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_frames_of_a_chunk_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    path = FILES[name](tmp_path / name)
    reader = VideoReader(path)
    table = PacketTable(str(path), reader.survey)
    if name in WHOLE:
        assert WHOLE[name] in table.doubt
        return
    assert table.doubt == ""
    whole = list(reader)
    assert len(whole) == COUNT == len(table.stamps)
    again = VideoReader(path, load(Packets, Packets.of(reader.survey).model_dump_json()).survey)
    assert (again.height, again.origin, again.frames) == (reader.height, reader.origin, reader.frames)
    rng = random.Random(name)
    for _ in range(STARTS):
        start = rng.randrange(COUNT)
        stop = rng.randrange(start + 1, COUNT + 1)
        span = span_of(table, reader, start, min(start, 9), stop)
        assert isinstance(span, Span), (start, span)
        frames = list(checked(again, span))
        assert len(frames) == stop - start + span.overlap
        for frame, wanted in zip(frames, whole[start - span.overlap : stop], strict=True):
            assert (frame.pts, frame.time) == (wanted.pts, wanted.time)
            assert np.array_equal(frame.rgb, wanted.rgb)


def test_a_decoder_begins_at_pictures_that_need_nothing_before_them(tmp_path: Path) -> None:
    closed, opened = (
        PacketTable(str(path), VideoReader(path).survey)
        for path in (FILES["closed.mp4"](tmp_path / "closed.mp4"), FILES["open.mp4"](tmp_path / "open.mp4"))
    )
    assert sum(entry.begins for entry in closed.entries) == 6
    assert sum(entry.begins for entry in opened.entries) == 1  # its other key frames are no IDR pictures


def test_damage_in_a_chunk_is_noticed(tmp_path: Path) -> None:
    path = FILES["closed.mp4"](tmp_path / "closed.mp4")
    reader = VideoReader(path)
    table = PacketTable(str(path), reader.survey)
    data = bytearray(path.read_bytes())
    at = len(data) * 2 // 3
    with av.open(str(path)) as container:
        place = sorted((p.pos, p.size) for p in container.demux(video=0) if p.size)
    at, size = place[40]
    data[at + 5 : at + size] = bytes(255 - byte for byte in data[at + 5 : at + size])
    path.write_bytes(data)
    span = span_of(table, reader, 45, 9, COUNT)
    assert isinstance(span, Span)
    with pytest.raises(Untrusted):
        list(checked(VideoReader(path, reader.survey), span))


def test_another_file_is_noticed(tmp_path: Path) -> None:
    path, other = (FILES[name](tmp_path / name) for name in ("closed.mp4", "uneven.mp4"))
    reader = VideoReader(path)
    span = span_of(PacketTable(str(path), reader.survey), reader, 20, 9, 40)
    assert isinstance(span, Span)
    with pytest.raises(Untrusted):
        list(checked(VideoReader(other), span))


def test_a_plan_says_why_a_file_is_one_job(tmp_path: Path) -> None:
    model = Model(bundle="b", sha256="0", engine="onnxruntime", precision="fp32", threads=1, words=(("a",),))
    planner = Planner(model, Labelling(gap=3, smooth=False), Outputs(), 9, 4, Fraction(25))
    good = planner.jobs(0, "closed", str(FILES["closed.mp4"](tmp_path / "closed.mp4")))
    assert [(job.span.start, job.span.stop, job.span.overlap) for job in good if job.span] == [
        (0, 15, 0), (15, 30, 9), (30, 45, 9), (45, 61, 9)
    ]  # fmt: skip
    assert [load(Job, job.model_dump_json()) for job in good] == good
    one = planner.jobs(1, "cut", str(FILES["editlist.mp4"](tmp_path / "editlist.mp4")))
    assert [(job.id, job.span, job.why_whole) for job in one] == [("00001-whole", None, "an edit list hides packets")]


def test_stamps_of_a_span_come_back() -> None:
    stamps = [5, 7, 9, 20, 21]
    span = Span(
        start=2, stop=5, overlap=2, seek=0, skip=0, first=5, steps=run_lengths(stamps), first_time=0, last_time=1
    )
    assert span.stamps == stamps
    assert [stop for _, stop in cuts(1000, 7)][-1] == 1000
