"""Pictures as phones and cameras write them: HEIC in one piece or in tiles, AVIF, and EXIF that says what is up."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video import images
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.images import ImageSource
from ov2vss_runtime.video.open_source import open_source
from tests.conftest import moving_frames

TURNED = 0x112
"""The tag of EXIF that says how a picture is turned and mirrored: 1 to 8."""


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[TURNED] = orientation
    return tags


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.fixture
def picture() -> np.ndarray:
    return moving_frames(1, (150, 230))[0]


@pytest.mark.parametrize("tile", [None, 64, 128])
def test_heic(tile: int | None, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tiles, as phones write it, its size is no multiple of theirs; FFmpeg's libraries give the tiles alone."""
    heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pi_heif")
    file, tiles = tmp_path / "photo.heic", {} if tile is None else {"tile_size": tile}
    heif.from_pillow(Image.fromarray(picture)).save(file, quality=95, **tiles)
    source = open_source(file)
    assert isinstance(source, ImageSource)
    (frame,) = source
    assert (frame.name, source.name) == ("photo", "photo")
    assert distance(frame.rgb, picture) < 4
    heif.from_pillow(Image.fromarray(picture[:, ::-1])).save(tmp_path / "q.heic", quality=95, **tiles)
    assert [f.name for f in open_source(tmp_path)] == ["photo", "q"]
    monkeypatch.setattr(images, "_heif", lambda: None)
    if tile is None:
        (other,) = open_source(file)
        assert distance(other.rgb, frame.rgb) < 1.5
    else:
        with pytest.raises(VideoError, match=r"one picture in \d+ tiles, .*; run: pip install 'ov2vss\[heic\]', or"):
            open_source(file)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(orientation: int, picture: np.ndarray, tmp_path: Path) -> None:
    """HEIC, JPEG, and Motion JPEG of cameras, by EXIF and what is made of it; Pillow says how it should be."""
    tagged, plain = BytesIO(), Image.fromarray(picture)
    plain.save(tagged, "JPEG", quality=95, exif=exif(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tagged)))
    (tmp_path / "photo.jpg").write_bytes(tagged.getvalue())
    (frame,) = open_source(tmp_path / "photo.jpg")
    assert distance(frame.rgb, upright) < 2
    with av.open(str(tmp_path / "camera.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuvj420p"
        container.start_encoding()
        for number in range(3):
            packet = av.Packet(tagged.getvalue())
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 25), True
            container.mux(packet)
    read = [f.rgb for f in VideoReader(tmp_path / "camera.avi")]
    assert len(read) == 3
    assert distance(read[0], upright) < 3
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(plain).save(tmp_path / "photo.heic", quality=95, exif=exif(orientation).tobytes())
    for source in (open_source(tmp_path / "photo.heic"), VideoReader(tmp_path / "photo.heic")):
        assert distance(next(iter(source)).rgb, upright) < 4


def test_avif_as_an_image(picture: np.ndarray, tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.fromarray(picture).save(tmp_path / "a.avif", quality=95)
    (frame,) = open_source(tmp_path / "a.avif")
    (other,) = VideoReader(tmp_path / "a.avif")
    assert distance(frame.rgb, picture) < 5
    assert distance(frame.rgb, other.rgb) < 3
    frames = [Image.fromarray(f) for f in moving_frames(4, (64, 96))]
    frames[0].save(tmp_path / "moving.avif", save_all=True, append_images=frames[1:], duration=40)
    assert len(list(open_source(tmp_path / "moving.avif"))) == 4


def test_photos_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    for name in ("a.heic", "b.avif"):
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(50))
        with pytest.raises(VideoError, match=f"{name} cannot be read as an image; remove or replace it"):
            open_source(tmp_path / name)
