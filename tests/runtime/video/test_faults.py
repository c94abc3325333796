"""What real files do and good ones do not: odd names, damage, clocks that jump, mirrors, sound of any codec."""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.containers import find_video
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.images import ImageSource
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.writer import VideoWriter
from tests.conftest import moving_frames, write_video

RATE = 48000


def write(source: VideoReader, path: Path, limit: int | None = None) -> VideoWriter:
    with VideoWriter(path, source) as writer:
        for frame in islice(source, limit):
            writer.write(frame.rgb, frame.pts)
    return writer


def tone(seconds: float, hertz: float = 440, start: float = 0) -> Iterator[av.AudioFrame]:
    wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)
    for at in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], "flt", "mono")
        frame.rate, frame.pts, frame.time_base = RATE, round(start * RATE) + at, Fraction(1, RATE)
        yield frame


def write_both(
    path: Path,
    codec: str = "aac",
    seconds: float = 1.0,
    sound: float | None = None,
    tracks: int = 1,
    start: float = 0,
    size: tuple[int, int] = (48, 64),
    video: str = "libx264",
    hertz: float = 440,
) -> Path:
    """Video at 25 frames a second with tones, whose clock begins at ``start`` seconds; packets interleave by time."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream(video, rate=25)
        picture.height, picture.width = size
        picture.pix_fmt = "yuv420p"
        voices = [container.add_stream(codec, rate=RATE, layout="mono") for _ in range(tracks)]
        for voice in voices:
            voice.bit_rate = 128_000
        packets = []
        for index, rgb in enumerate(moving_frames(round(25 * seconds), size)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = round(25 * start) + index, Fraction(1, 25)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for voice in voices:
            shape = voice.codec_context
            fitted = av.AudioResampler(shape.format, shape.layout, RATE, shape.frame_size or 1024)
            for frame in tone(seconds if sound is None else sound, hertz, start):
                packets += [p for f in fitted.resample(frame) for p in voice.encode(f)]
            packets += [p for f in fitted.resample(None) for p in voice.encode(f)]
            packets += voice.encode(None)
        container.start_encoding()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def streams(path: Path) -> list[tuple[str, float, float]]:
    """Codec, begin and end in seconds of each stream, by its packets."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams)
    for index in range(count):
        with av.open(str(path)) as container:
            stream = container.streams[index]
            spans = [(float(p.pts * p.time_base), float(p.duration * p.time_base))
                     for p in container.demux(stream) if p.size]  # fmt: skip
            name = stream.codec_context.codec.canonical_name
            found.append((name, min(t for t, _ in spans), max(t + d for t, d in spans)))
    return found


def loudness(path: Path, hertz: float, begin: float, end: float) -> float:
    """Amplitude of a tone in a piece of the first audio stream."""
    pieces = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = np.asarray(frame.to_ndarray(), np.float64).ravel()
            samples = samples / 32768 if frame.format.name.startswith("s16") else samples
            pieces.append((float(frame.pts * frame.time_base), samples, frame.sample_rate))
    rate = pieces[0][2]
    wave = np.zeros(round(rate * (max(end, pieces[-1][0]) + 1)))
    for time, samples, _ in pieces:
        at = max(0, round(time * rate))
        wave[at : at + len(samples)] = samples
    cut = wave[round(begin * rate) : round(end * rate)]
    return float(2 * np.abs(np.mean(cut * np.exp(-2j * np.pi * hertz * np.arange(len(cut)) / rate))))


# -- names, tags, streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["12:30:00.mp4", "concat:a.mp4", "-a.mp4", "50%d.mp4", "a?b#c.mp4", "[a]*.mp4", "http:a.mp4", "-.mp4"]
)
def test_local_names_are_never_addresses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4", moving_frames(3, (48, 64))).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source(name))) == 3
    assert len(list(open_source(Path(name)))) == 3


def test_tags_that_are_not_utf8(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        container.metadata["title"] = "TITLETITLE"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for rgb in moving_frames(3, (48, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "v.mp4").read_bytes()
    assert b"TITLETITLE" in data
    (tmp_path / "v.mp4").write_bytes(data.replace(b"TITLETITLE", "视频标题哦".encode("gbk")))
    assert len(list(VideoReader(tmp_path / "v.mp4"))) == 3


def test_elementary_streams_have_the_time_of_their_frames(tmp_path: Path) -> None:
    frames = moving_frames(30)
    reader = VideoReader(write_video(tmp_path / "v.h264", frames))
    read = list(reader)
    assert [f.time for f in read] == pytest.approx([k / 25 for k in range(30)])
    assert reader.frames == 30
    last = reader.last_frame()
    assert (last.pts, np.array_equal(last.rgb, read[-1].rgb)) == (read[-1].pts, True)
    write(reader, tmp_path / "out.mp4")
    assert streams(tmp_path / "out.mp4")[0] == ("h264", 0, pytest.approx(1.2))


def with_cover(path: Path, container_of: Callable[[av.container.OutputContainer], list], first: bool) -> Path:
    """A container with an attached JPEG before or after its other streams."""
    with av.open(str(path), "w") as container:

        def cover():
            stream = container.add_stream("mjpeg", rate=1)
            stream.height, stream.width, stream.pix_fmt = 128, 128, "yuvj420p"
            stream.disposition = av.stream.Disposition.attached_pic
            return stream

        picture = cover() if first else None
        packets = container_of(container)
        picture = picture or cover()
        frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 90, np.uint8), format="rgb24")
        for packet in [*picture.encode(frame), *picture.encode(None), *packets()]:
            container.mux(packet)
    return path


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    def video(container):
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(f, format="rgb24") for f in moving_frames(5, (48, 64))]
        return lambda: [p for f in [*frames, None] for p in stream.encode(f)]

    def song(container):
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        fitted = av.AudioResampler("fltp", "mono", RATE, 1152)
        frames = [f for t in tone(0.3) for f in fitted.resample(t)]
        return lambda: [p for f in [*frames, None] for p in stream.encode(f)]

    reader = VideoReader(with_cover(tmp_path / "v.mp4", video, first=True))
    assert (reader.height, reader.width, len(list(reader))) == (48, 64, 5)
    with pytest.raises(VideoError, match=r"song\.mp3 holds only a cover picture and no video"):
        VideoReader(with_cover(tmp_path / "song.mp3", song, first=False))


def test_the_stream_that_ffmpeg_prefers(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        made = []
        for size in ((36, 64), (90, 160)):
            stream = container.add_stream("libx264", rate=25)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            made.append((stream, size))
        made[0][0].disposition, made[1][0].disposition = av.stream.Disposition(0), av.stream.Disposition.default
        packets = []
        for stream, size in made:
            for rgb in [*moving_frames(5, size), None]:
                packets += stream.encode(None if rgb is None else av.VideoFrame.from_ndarray(rgb, format="rgb24"))
        container.start_encoding()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    reader = VideoReader(tmp_path / "v.mkv")
    assert (reader.height, reader.width, len(list(reader))) == (90, 160, 5)


def test_a_tile_is_not_taken_for_the_picture() -> None:
    """Phones store HEIC pictures in tiles, which FFmpeg's libraries show as streams of their own."""
    tile = SimpleNamespace(disposition=1 << 19, codec_context=object())
    container = SimpleNamespace(streams=SimpleNamespace(video=[tile] * 4, best=lambda _: tile))
    with pytest.raises(VideoError, match=r"p\.heic is one picture in 4 tiles"):
        find_video(container, "p.heic")


# -- damage ------------------------------------------------------------------------------------------------------------


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_both(tmp_path / "v.mp4", seconds=3.0)
    whole = [f.pts for f in VideoReader(path)]
    with av.open(str(path)) as container:
        found = [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos]
    data = bytearray(path.read_bytes())
    for _, at, size in found[30:33]:
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    reader = VideoReader(path)
    read = [f.pts for f in reader]
    with av.open(str(path)) as container:  # frame by frame, by hand
        wanted = []
        for packet in container.demux(video=0):
            try:
                wanted += [f.pts for f in packet.decode()]
            except av.error.InvalidDataError:
                continue
    assert read == wanted
    assert 3 <= reader.missing == 75 - len(read) <= 6
    assert set(read) < set(whole)
    assert reader.notices == [
        f"{path} is damaged: {reader.missing} of 75 frames are missing; repair or re-download the file "
        "(for example: ffmpeg -i broken.mp4 -c copy repaired.mp4)"
    ]
    assert reader.last_frame().pts == read[-1]


def test_an_mp4_that_does_not_begin_with_a_key_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", moving_frames(60), codec="mpeg4")
    with av.open(str(whole)) as a, av.open(str(tmp_path / "v.mp4"), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for number, packet in enumerate(a.demux(video=0)):
            if number > 2 and packet.dts is not None:
                packet.stream = stream
                b.mux(packet)
    reader = VideoReader(tmp_path / "v.mp4")
    read = list(reader)
    assert len(read) >= 45  # the rest of the first group of pictures may be without its reference
    assert len(read) + reader.missing == 57


# -- time --------------------------------------------------------------------------------------------------------------


def test_recordings_that_were_joined(tmp_path: Path) -> None:
    """``cat a.ts b.ts``: the clock starts again, and picture and sound go on together."""
    a = write_both(tmp_path / "a.ts", hertz=440)
    b = write_both(tmp_path / "b.ts", hertz=1000, seconds=0.8)
    (tmp_path / "ab.ts").write_bytes(a.read_bytes() + b.read_bytes() + a.read_bytes())
    reader = VideoReader(tmp_path / "ab.ts")
    read = [f.time for f in reader]
    assert len(read) == 70
    assert np.diff(read) == pytest.approx(np.full(69, 0.04), abs=2e-3)
    assert read[0] == 0
    assert reader.last_frame().time == pytest.approx(read[-1], abs=0.05)
    write(reader, tmp_path / "out.mp4")
    (_, start, end), (_, sound_start, sound_end) = streams(tmp_path / "out.mp4")
    assert (start, end) == (0, pytest.approx(2.8, abs=0.05))
    assert (sound_start, sound_end) == (pytest.approx(0, abs=0.06), pytest.approx(2.8, abs=0.1))
    heard = [
        [loudness(tmp_path / "out.mp4", hertz, t, t + 0.4) > 0.2 for hertz in (440, 1000)] for t in (0.3, 1.2, 2.1)
    ]
    assert heard == [[True, False], [False, True], [True, False]]


def test_a_clock_that_began_long_before(tmp_path: Path) -> None:
    reader = VideoReader(write_both(tmp_path / "v.ts", start=50_000))
    assert [f.time for f in reader] == pytest.approx([k / 25 for k in range(25)])
    assert reader.last_frame().time == pytest.approx(0.96)
    write(reader, tmp_path / "out.mp4")
    (_, start, end), (_, sound_start, sound_end) = streams(tmp_path / "out.mp4")
    assert (start, end) == (0, pytest.approx(1.0))
    assert (sound_start, sound_end) == (pytest.approx(0, abs=0.05), pytest.approx(1.0, abs=0.06))


def test_a_trimmed_clip_does_not_bring_back_the_sound_that_was_cut_off(tmp_path: Path) -> None:
    """``ffmpeg -ss 1 -c copy`` keeps packets before the cut and hides them behind an edit list."""
    secret, open_ = write_both(tmp_path / "secret.mp4", hertz=1000), write_both(tmp_path / "open.mp4", hertz=440)
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        kept = {}
        with av.open(str(secret)) as one, av.open(str(open_)) as two:
            for kind in ("video", "audio"):
                kept[kind] = out.add_stream_from_template(getattr(one.streams, kind)[0])
            for shift, container in ((-1, one), (0, two)):
                for packet in container.demux():
                    if packet.dts is None or (shift == 0 and packet.dts < 0 and packet.stream.type == "audio"):
                        continue
                    packet.pts += round(shift / packet.time_base)
                    packet.dts += round(shift / packet.time_base)
                    packet.stream = kept[packet.stream.type]
                    out.mux(packet)
    reader = VideoReader(tmp_path / "clip.mp4")
    assert next(iter(reader)).time == 0
    write(reader, tmp_path / "out.mp4")
    (_, start, _), (_, sound_start, _) = streams(tmp_path / "out.mp4")
    assert start == 0
    assert sound_start > -0.025  # at most the packet that lies across the cut
    data = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "bare.mp4").write_bytes(data.replace(b"elst", b"free"))  # all that is stored, heard without edit list
    assert loudness(tmp_path / "bare.mp4", 440, 0.1, 0.9) > 0.2
    assert loudness(tmp_path / "bare.mp4", 1000, 0.0, 0.9) < 0.05


# -- sound -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "becomes"),
    [
        ("aac", "ts", "aac"),  # ADTS, which mp4 does not have
        ("libmp3lame", "avi", "mp3"),
        ("libopus", "mkv", "opus"),
        ("ac3", "mkv", "ac3"),
        ("flac", "mkv", "flac"),
        ("pcm_s16le", "mkv", "aac"),
        ("pcm_s16le", "avi", "aac"),
        ("mp2", "ts", "aac"),
    ],
)
def test_sound_of_every_codec_comes_along(codec: str, suffix: str, becomes: str, tmp_path: Path) -> None:
    video = "mpeg4" if suffix == "avi" else "libx264"
    reader = VideoReader(write_both(tmp_path / f"v.{suffix}", codec, video=video))
    writer = write(reader, tmp_path / "out.mp4")
    (_, _, end), (name, _, sound_end) = streams(tmp_path / "out.mp4")
    assert (name, end) == (becomes, pytest.approx(1.0, abs=0.05))
    assert sound_end == pytest.approx(1.0, abs=0.12)
    assert loudness(tmp_path / "out.mp4", 440, 0.3, 0.7) == pytest.approx(0.5, abs=0.12)
    copied = becomes in codec
    assert writer.notices == ([] if copied else [f"audio track 1 ({canonical(codec)}) does not fit into mp4: "
                                                 "encoded as AAC"])  # fmt: skip


def canonical(codec: str) -> str:
    return av.Codec(codec, "w").canonical_name


def test_sound_of_an_unknown_codec_is_left_out_and_said(tmp_path: Path) -> None:
    path = write_both(tmp_path / "v.mp4", tracks=2)
    data = path.read_bytes()
    for tag in (b"mp4a", b"esds"):
        at = data.rindex(tag)
        data = data[:at] + b"qqqq" + data[at + 4 :]
    path.write_bytes(data)
    writer = write(VideoReader(path), tmp_path / "out.mp4")
    assert writer.notices == ["audio track 2 has a codec that FFmpeg does not know and is left out"]
    assert [name for name, _, _ in streams(tmp_path / "out.mp4")] == ["h264", "aac"]


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_the_sound_ends_with_the_picture(codec: str, tmp_path: Path) -> None:
    reader = VideoReader(write_both(tmp_path / "v.mkv", codec, seconds=2.0, sound=5.0))
    write(reader, tmp_path / "ten.mp4", limit=10)
    (_, _, end), (_, _, sound_end) = streams(tmp_path / "ten.mp4")
    assert end == pytest.approx(0.4, abs=0.01)
    assert sound_end == pytest.approx(0.4, abs=0.05)
    write(reader, tmp_path / "all.mp4")  # whole: nothing of the sound is lost
    assert streams(tmp_path / "all.mp4")[1][2] == pytest.approx(5.0, abs=0.05)


def test_a_muxer_that_fails_gives_its_own_cause(tmp_path: Path) -> None:
    """Free space is the remedy only where the disk was the cause."""

    def refuse(_: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    reader = VideoReader(write_video(tmp_path / "v.mp4", moving_frames(3, (48, 64))))
    cause = r"FFmpeg cannot write .*out\.part\.mp4 \(Invalid argument\)"
    writer = VideoWriter(tmp_path / "out.mp4", reader)
    with pytest.raises(VideoError, match=cause) as caught, writer:  # noqa: PT012
        writer.stream = SimpleNamespace(encode=refuse, pix_fmt="yuv420p", codec_context=writer.stream.codec_context)
        writer.write(next(iter(reader)).rgb, 0)
    assert "space" not in str(caught.value)


# -- shape -------------------------------------------------------------------------------------------------------------


def set_matrix(mp4: bytes, matrix: tuple[int, ...]) -> bytes:
    """An mp4 whose track header says how it is turned and mirrored: (a, b, c, d)."""
    data = bytearray(mp4)
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (x << 16 for x in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(data)


def quarters_of(rgb: np.ndarray) -> list[list[int]]:
    """(row, column) of the quarters of a picture that are red."""
    height, width = rgb.shape[:2]
    return np.argwhere(
        [[rgb[y * height // 2 :, x * width // 2 :][10, 10, 0] > 150 for x in (0, 1)] for y in (0, 1)]
    ).tolist()


@pytest.mark.parametrize(
    ("matrix", "red"),
    [((-1, 0, 0, 1), (0, 1)), ((1, 0, 0, -1), (1, 0)), ((0, 1, 1, 0), (0, 0)), ((0, -1, -1, 0), (1, 1)),
     ((0, 1, -1, 0), (0, 1)), ((-1, 0, 0, -1), (1, 1))],
)  # fmt: skip
def test_mirrors_and_turns_of_a_file(matrix: tuple[int, ...], red: tuple[int, int], tmp_path: Path) -> None:
    """A red upper left quarter; where a player shows it (row, column) by the matrix of the track's header."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = (255, 0, 0)
    path = write_video(tmp_path / "v.mp4", [picture] * 3)
    path.write_bytes(set_matrix(path.read_bytes(), matrix))
    reader = VideoReader(path)
    assert (reader.height, reader.width) == ((96, 64) if matrix[0] == 0 else (64, 96))
    assert quarters_of(next(iter(reader)).rgb) == [list(red)]


def test_a_size_that_changes_inside_a_file(tmp_path: Path) -> None:
    a = write_both(tmp_path / "a.ts", size=(48, 96))
    b = write_both(tmp_path / "b.ts", size=(96, 48))
    (tmp_path / "ab.ts").write_bytes(a.read_bytes() + b.read_bytes())
    reader = VideoReader(tmp_path / "ab.ts")
    frames = list(reader)
    assert {f.rgb.shape for f in frames} == {(48, 96, 3)}
    assert len(frames) == 50
    assert (frames[-1].rgb[:, :30] < 8).all()
    assert frames[-1].rgb[:, 40:56].mean() > 50
    assert "changes from 96x48 to 48x96 on the way" in reader.notices[0]


@pytest.mark.parametrize("size", [(16, 16386), (16400, 16)])
def test_pictures_that_the_encoder_does_not_take(size: tuple[int, int], tmp_path: Path) -> None:
    source = SimpleNamespace(path=None, height=size[0], width=size[1])
    with pytest.raises(VideoError, match=f"would be {size[1]}x{size[0]}, and the encoder takes at most 16384"):
        VideoWriter(tmp_path / "out.mp4", source)
    assert list(tmp_path.iterdir()) == []


# -- images ------------------------------------------------------------------------------------------------------------


def image(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 48, 3), value, np.uint8))
    return path


def test_one_image_is_a_source(tmp_path: Path) -> None:
    for name in ("photo.jpg", "p%03d.jpg", "scan.png"):
        source = open_source(image(tmp_path / name))
        assert isinstance(source, ImageSource)
        assert source.name == Path(name).stem
        assert [f.name for f in source] == [Path(name).stem]
        assert source.audio() is None


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.apng", moving_frames(4, (48, 64)), codec="apng", pix_fmt="rgb24")
    assert len(list(open_source(path.rename(tmp_path / "v.png")))) == 4


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """macOS writes ``._a.jpg`` beside ``a.jpg`` on foreign disks."""
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / name)
        (tmp_path / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    assert [f.name for f in open_source(tmp_path)] == ["a", "b"]
    assert [f.name for f in open_source(f"{tmp_path}/*.jpg")] == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "pattern", "names"),
    [
        (["a.jpg", "a.png", "b.jpg"], "", ["a.jpg", "a.png", "b.jpg"]),
        (["A.jpg", "a.png"], "", ["A.jpg", "a.png"]),  # one name where capitals do not count
        (["x/1.jpg", "x/2.jpg", "y/1.jpg"], "*/*.jpg", ["x/1", "x/2", "y/1"]),
        (["x2/1.jpg", "x10/1.jpg", "x10/1.png"], "*/*", ["x2/1.jpg", "x10/1.jpg", "x10/1.png"]),
        (["x/1.jpg", "y/2.jpg"], "*/*.jpg", ["1", "2"]),
    ],
)
def test_every_image_has_a_name_of_its_own(files: list[str], pattern: str, names: list[str], tmp_path: Path) -> None:
    for number, file in enumerate(files):
        image(tmp_path / "pictures" / file, 20 * number)
    source = open_source(f"{tmp_path}/pictures/{pattern}" if pattern else tmp_path / "pictures")
    read = list(source)
    assert [f.name for f in read] == names
    assert [round(f.rgb[0, 0, 0] / 20) for f in read] == [files.index(f) for f in sorted(files, key=files.index)]
    assert source.name == "pictures"
    assert all(a.pts < b.pts for a, b in pairwise(read))
