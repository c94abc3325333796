"""Video in, video out: size, frame count, timestamps, audio, colours."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.masks import MaskWriter, mask_ids
from ov2vss_runtime.outputs.overlay import Overlay, palette
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.writer import VideoWriter
from tests.conftest import moving_frames, write_video


def copy(source: Path, target: Path) -> None:
    reader = VideoReader(source)
    with VideoWriter(target, reader) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


def test_size_timestamps_and_audio_survive(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", moving_frames(30), audio=True)
    copy(source, tmp_path / "out.mp4")
    reader = VideoReader(tmp_path / "out.mp4")
    assert (reader.height, reader.width, reader.has_audio) == (96, 160, True)
    assert times(tmp_path / "out.mp4") == pytest.approx(times(source))

    def audio(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    assert audio(tmp_path / "out.mp4") == audio(source)
    assert not (tmp_path / "out.part.mp4").exists()


def test_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 200, 220, 500, 510, 900]
    source = write_video(tmp_path / "in.mp4", moving_frames(8), stamps, Fraction(1, 1000))
    copy(source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx([s / 1000 for s in stamps], abs=1e-3)


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_colours_are_rgb(tmp_path: Path, rgb: tuple[int, int, int]) -> None:
    source = write_video(tmp_path / "in.mp4", [np.full((64, 64, 3), rgb, np.uint8)] * 3)
    copy(source, tmp_path / "out.mp4")
    for path in (source, tmp_path / "out.mp4"):
        mean = next(iter(VideoReader(path))).rgb.reshape(-1, 3).mean(0)
        assert np.abs(mean - rgb).max() < 12


@pytest.mark.parametrize(("size", "matrix"), [((720, 1280), 1), ((480, 640), 6)])
@pytest.mark.parametrize("rgb", [(200, 30, 30), (30, 180, 60), (40, 60, 210)])
def test_colour_matrices(tmp_path: Path, size: tuple[int, int], matrix: int, rgb: tuple[int, int, int]) -> None:
    """HD is BT.709, the rest BT.601: read so where a file does not say, and written with its name."""
    luma = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114)}[matrix]
    red, green, blue = (c / 255 for c in rgb)
    y = luma[0] * red + luma[1] * green + luma[2] * blue
    planes = (16 + 219 * y, 128 + 224 * (blue - y) / (2 * (1 - luma[2])), 128 + 224 * (red - y) / (2 * (1 - luma[0])))
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        frame = av.VideoFrame(size[1], size[0], "yuv420p")
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(np.full((plane.height, plane.line_size), round(value), np.uint8).tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    copy(tmp_path / "in.mkv", tmp_path / "out.mp4")
    for name in ("in.mkv", "out.mp4"):
        mean = next(iter(VideoReader(tmp_path / name))).rgb.reshape(-1, 3).mean(0)
        assert np.abs(mean - rgb).max() < 6, name  # the other matrix is off by 7 to 24
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == matrix


def test_anamorphic_pixels_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(8, 3)
        for frame in moving_frames(3, (96, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert VideoReader(path).pixel_aspect == Fraction(8, 3)
    copy(path, tmp_path / "out.mp4")
    reader = VideoReader(tmp_path / "out.mp4")
    assert (reader.width, reader.height, reader.pixel_aspect) == (64, 96, Fraction(8, 3))


def test_slow_video_has_a_fragment_a_second(tmp_path: Path) -> None:
    """Two frames a second under a nominal rate of 25: a key frame for every second, not for every 25 frames."""
    stamps = [500 * k for k in range(20)]
    source = VideoReader(write_video(tmp_path / "in.mkv", moving_frames(20), stamps, Fraction(1, 1000)))
    source.rate = Fraction(25)
    with VideoWriter(tmp_path / "out.mp4", source) as writer:
        for frame in source:
            writer.write(frame.rgb, frame.pts)
    with av.open(str(tmp_path / "out.mp4")) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert keys == pytest.approx([float(k) for k in range(10)], abs=1e-3)
    assert (tmp_path / "out.mp4").read_bytes().count(b"moof") == 10


def test_odd_sizes_are_padded_so_that_players_take_them(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", moving_frames(4, (75, 101)), codec="ffv1", pix_fmt="bgr0")
    copy(source, tmp_path / "out.mp4")
    reader = VideoReader(tmp_path / "out.mp4")
    frames = list(reader)
    assert (reader.height, reader.width, len(frames)) == (76, 102, 4)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"  # what every player takes
    for frame, original in zip(frames, VideoReader(source), strict=True):
        assert np.abs(frame.rgb[:75, :101].astype(int) - original.rgb).mean() < 6
        # The last row and column are there twice.
        assert np.abs(frame.rgb[75].astype(int) - frame.rgb[74]).mean() < 4


def test_last_frame_is_the_last_that_decodes(tmp_path: Path) -> None:
    frames = moving_frames(40)
    reader = VideoReader(write_video(tmp_path / "in.mp4", frames))
    *_, last = reader
    assert np.array_equal(reader.last_frame().rgb, last.rgb)
    assert reader.last_frame().pts == last.pts
    assert reader.frames == 40


def test_unusable_sources(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 50)
    whole = write_video(tmp_path / "whole.mp4", moving_frames(30))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-2000])
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    for path, message in [
        (tmp_path / "missing.mp4", "does not exist"),
        (text, "cannot be opened"),
        (empty, "cannot be opened"),
        (cut, "cannot be opened|truncated"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(VideoError, match=message):
            VideoReader(path)


def test_truncated_file_with_its_index_in_front(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", moving_frames(60))
    front = tmp_path / "front.mp4"
    with av.open(str(source)) as a, av.open(str(front), "w", options={"movflags": "faststart"}) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)
    assert VideoReader(front).frames == 60
    front.write_bytes(front.read_bytes()[: front.stat().st_size // 2])
    reader = VideoReader(front)
    frames = list(reader)
    # The index lists sixty frames: what is there comes out, and the rest is counted.
    assert 10 < len(frames) < 60
    assert [f.pts for f in frames[:10]] == [f.pts for f in VideoReader(source)][:10]
    assert reader.missing == 60 - len(frames)
    assert f"{reader.missing} of 60 frames are missing" in reader.notices[-1]


def test_an_interrupted_output_plays_and_is_marked(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "in.mp4", moving_frames(60), audio=True))
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "out.mp4", reader) as writer:  # noqa: PT012
        for index, frame in enumerate(reader):
            if index == 50:
                raise RuntimeError
            writer.write(frame.rgb, frame.pts)
    assert not (tmp_path / "out.mp4").exists()
    assert len(times(tmp_path / "out.part.mp4")) == 50


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "in.mp4", moving_frames(3)))
    for target, message in [
        (tmp_path / "no" / "such" / "out.mp4", "cannot be written"),
        (tmp_path / "out.gif", "does not end in .mp4"),
        (tmp_path / "in.mp4", "is the source itself"),
    ]:
        with pytest.raises(VideoError, match=message):
            VideoWriter(target, reader)


def test_masks_are_indexed_pngs(tmp_path: Path) -> None:
    from PIL import Image

    labels = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    path = MaskWriter(tmp_path / "masks", 3).write("000000", labels)
    image = Image.open(path)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), [[1, 2, 3], [0, 3, 1]])
    assert image.getpalette()[3:6] == palette(3)[0].tolist()

    wide = MaskWriter(tmp_path / "wide", 300).write("000000", np.array([[0, 299, 65535]], np.uint16))
    assert np.array_equal(np.asarray(Image.open(wide)), [[1, 300, 0]])
    assert mask_ids(np.array([0, 299, 65535], np.uint16), 300).dtype == np.uint16


def test_colours_are_distinct_and_stable() -> None:
    colours = palette(124)
    assert len({tuple(c) for c in colours.tolist()}) == 124
    assert np.array_equal(colours[:11], palette(11))


@pytest.mark.parametrize("size", [(48, 64), (360, 640), (1080, 1920), (640, 360)])
@pytest.mark.parametrize("classes", [1, 11, 124])
def test_overlay_fits_any_frame(size: tuple[int, int], classes: int) -> None:
    frame = np.full((*size, 3), 100, np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = classes - 1
    labels[0, 0] = 255
    out = Overlay([f"class {k}" for k in range(classes)], size, 0.5).draw(frame, labels)
    assert out.shape == frame.shape
    assert out.dtype == np.uint8
    assert np.array_equal(out[0, 0], [100, 100, 100])  # unknown stays as it is
    assert np.abs(out[0, 1].astype(int) - (100 + palette(classes)[0].astype(int)) / 2).max() <= 1
    assert np.array_equal(frame, np.full((*size, 3), 100, np.uint8))
