"""Every format that PyAV can make is read: as many frames as went in, and the same picture."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.writer import VideoWriter
from tests.conftest import moving_frames, write_video

CASES = [
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv420p10le", "mkv"),
    ("libx264", "yuv444p", "mov"),
    ("libx265", "yuv420p", "mp4"),
    ("libx265", "yuv420p10le", "mp4"),
    ("libx265", "yuv420p12le", "mkv"),
    ("libx265", "yuv420p", "hevc"),
    ("libsvtav1", "yuv420p", "mp4"),
    ("libvpx", "yuv420p", "webm"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("mpeg1video", "yuv420p", "mpg"),
    ("mpeg2video", "yuv420p", "ts"),
    ("mpeg2video", "yuv420p", "vob"),
    ("mpeg4", "yuv420p", "avi"),
    ("h263p", "yuv420p", "avi"),
    ("flv", "yuv420p", "flv"),
    ("prores_ks", "yuv422p10le", "mov"),
    ("ffv1", "bgr0", "mkv"),
    ("mjpeg", "yuvj420p", "avi"),
    ("gif", "rgb8", "gif"),
    ("apng", "rgb24", "apng"),
    ("huffyuv", "yuv422p", "avi"),
]


@pytest.mark.parametrize(("codec", "pixels", "suffix"), CASES)
def test_video_of_every_codec(codec: str, pixels: str, suffix: str, tmp_path: Path) -> None:
    frames = moving_frames(12, (64, 96))
    reader = VideoReader(write_video(tmp_path / f"v.{suffix}", frames, codec=codec, pix_fmt=pixels))
    read = list(reader)
    assert len(read) == 12
    assert reader.missing == 0
    assert reader.notices == []
    assert read[0].time == 0
    assert np.diff([f.time for f in read]) == pytest.approx(np.full(11, 0.04), abs=2e-3)
    coarse = codec in ("gif", "mpeg1video", "mpeg2video", "mpeg4", "h263p", "flv")  # few colours, or few bits
    bound = 30 if coarse else 12
    for mine, original in zip(read, frames, strict=True):
        assert np.abs(mine.rgb.astype(int) - original).mean() < bound
    last = reader.last_frame()
    assert last.pts == read[-1].pts
    assert np.array_equal(last.rgb, read[-1].rgb)


def test_dv(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.dv", moving_frames(3, (576, 720)), codec="dvvideo")
    reader = VideoReader(path)
    assert (reader.height, reader.width, len(list(reader))) == (576, 720, 3)
    assert reader.pixel_aspect == Fraction(16, 15)


def test_avif(tmp_path: Path) -> None:
    from PIL import Image, features

    if not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    (rgb,) = moving_frames(1, (64, 96))
    Image.fromarray(rgb).save(tmp_path / "v.avif", quality=90)
    (frame,) = VideoReader(tmp_path / "v.avif")
    assert np.abs(frame.rgb.astype(int) - rgb).mean() < 8


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 64), (63, 1), (16, 16384), (16384, 16), (75, 101)])
def test_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    """Read, and written so that every player takes it: an odd side is one longer."""
    rgb = np.full((*size, 3), (90, 120, 60), np.uint8)
    reader = VideoReader(write_video(tmp_path / "v.mov", [rgb] * 2, codec="png", pix_fmt="rgb24"))
    assert [f.rgb.shape for f in reader] == [rgb.shape] * 2
    with VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert len(writer.notices) == (1 if size[0] % 2 or size[1] % 2 else 0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == tuple(n + n % 2 for n in size)
        frames = list(container.decode(stream))
    assert len(frames) == 2
    assert np.abs(frames[0].to_ndarray(format="rgb24").astype(int) - (90, 120, 60)).max() < 8


def test_subtitles_are_in_nobodys_way(tmp_path: Path) -> None:
    """Picture, sound and text in one file, and frames at their own uneven times."""
    times = [0, 40, 80, 200, 240, 500, 540, 580, 900, 940, 980, 1000]
    film = write_video(
        tmp_path / "film.mkv", moving_frames(12, (64, 96)), pts=times, time_base=Fraction(1, 1000), codec="mpeg4"
    )
    (tmp_path / "text.srt").write_text(
        "1\n00:00:00,000 --> 00:00:00,500\nOne\n\n2\n00:00:00,600 --> 00:00:01,000\nTwo\n"
    )
    with (
        av.open(str(film)) as a,
        av.open(str(tmp_path / "text.srt")) as b,
        av.open(str(tmp_path / "v.mkv"), "w") as out,
    ):
        streams = [out.add_stream_from_template(container.streams[0]) for container in (b, a)]  # the text first
        for container, stream in zip((b, a), streams, strict=True):
            for packet in container.demux(container.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    reader = VideoReader(tmp_path / "v.mkv")
    with av.open(str(tmp_path / "v.mkv")) as container:
        assert [s.type for s in container.streams] == ["subtitle", "video"]
    assert [round(1000 * f.time) for f in reader] == times
    with VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert writer.notices == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [round(1000 * f.time) for f in container.decode(video=0)] == times
