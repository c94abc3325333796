"""Upright pictures of one size: every turn and mirror, other sizes on the way, transparency, HDR."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from ov2vss_runtime.video.pictures import Pictures, display_matrix, letterbox, upright

ONE = 1 << 16


def corners(turn: tuple[int, int, int, int]) -> list[list[int]]:
    """A picture of four pixels, numbered row by row, moved by FFmpeg's definition of a display matrix."""
    a, b, c, d = turn
    moved = {}
    for number, (x, y) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        moved[a * x + c * y, b * x + d * y] = number
    left, top = min(x for x, _ in moved), min(y for _, y in moved)
    return [[moved[left + x, top + y] for x in (0, 1)] for y in (0, 1)]


TURNS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0),
         (0, -1, -1, 0)]  # fmt: skip


@pytest.mark.parametrize("turn", TURNS)
def test_all_eight_display_matrices(turn: tuple[int, int, int, int]) -> None:
    a, b, c, d = turn
    picture = np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2, 1), 3, 2)
    assert upright(picture, ((a, b), (c, d)))[..., 0].tolist() == corners(turn)


class FrameStandIn:
    def __init__(self, values: list[int]) -> None:
        from av.sidedata.sidedata import Type

        class Data:
            type = Type.DISPLAYMATRIX

            def __bytes__(self) -> bytes:
                return struct.pack("<9i", *values)

        self.side_data = [Data()]


def test_matrices_that_say_nothing_or_too_much() -> None:
    def read(a: int, b: int, c: int, d: int):
        return display_matrix(FrameStandIn([a, b, 0, c, d, 0, 0, 0, 1 << 30]))

    assert read(0, 0, 0, 0) == ((1, 0), (0, 1))
    assert read(0, ONE, 0, 0) == ((1, 0), (0, 1))
    assert read(2 * ONE, 0, 0, -ONE) == ((1, 0), (0, -1))  # a scale is not taken
    assert read(1, ONE, -ONE, 1) == ((0, 1), (-1, 0))  # nearly a quarter turn
    assert display_matrix(av.VideoFrame(4, 4, "rgb24")) == ((1, 0), (0, 1))


def frame(width: int, height: int, colour: tuple[int, ...] = (200, 60, 40), pixels: str = "rgb24") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((height, width, len(colour)), colour, np.uint8), format=pixels)


def test_another_size_is_fitted_with_bars_and_said_once() -> None:
    said: list[str] = []
    pictures = Pictures("v.ts", said.append)
    assert pictures(frame(160, 90)).shape == (90, 160, 3)
    for _ in range(2):
        rgb = pictures(frame(90, 160))
        assert rgb.shape == (90, 160, 3)
        inside = np.flatnonzero(rgb[45, :, 0] > 100)
        assert len(inside) == pytest.approx(90 * 90 / 160, abs=1)  # its shape is kept
        assert inside.mean() == pytest.approx(79.5, abs=1)  # in the middle
        assert (rgb[:, :50] == 0).all()
    assert said == ["v.ts: the picture changes from 160x90 to 90x160 on the way; it is fitted into 160x90 with bars"]


def test_another_shape_of_pixels_is_fitted_too() -> None:
    pictures = Pictures("v.ts", lambda _: None)
    pictures(frame(64, 48), Fraction(4, 3))
    assert pictures.pixel_aspect == Fraction(4, 3)
    rgb = pictures(frame(64, 48), Fraction(1))
    assert np.count_nonzero(rgb[24, :, 0] > 100) == 48  # three quarters as wide


def test_letterbox_without_change_of_shape_has_no_bars() -> None:
    rgb = np.full((90, 160, 3), 9, np.uint8)
    assert (letterbox(rgb, Fraction(1), (45, 80), Fraction(1)) == 9).all()


def test_transparency_is_ignored_and_said_where_there_is_any() -> None:
    said: list[str] = []
    pictures = Pictures("v.mov", said.append)
    assert pictures(frame(8, 8, (200, 60, 40, 255), "rgba"))[0, 0].tolist() == [200, 60, 40]
    assert said == []
    assert pictures(frame(8, 8, (200, 60, 40, 0), "rgba"))[0, 0].tolist() == [200, 60, 40]
    assert said == ["v.mov: transparency is ignored"]


def hdr_grey(signal: float, transfer: int) -> av.VideoFrame:
    grey = av.VideoFrame(64, 64, "yuv420p10le")
    for index, plane in enumerate(grey.planes):
        value = round(64 + 876 * signal) if index == 0 else 512
        plane.update(np.full((plane.height, plane.line_size // 2), value, np.uint16).tobytes())
    grey.colorspace, grey.color_trc, grey.color_primaries, grey.color_range = 9, transfer, 9, 1
    return grey


def pq(nits: float) -> float:
    """SMPTE ST 2084: light -> signal."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    y = (nits / 10000) ** m1
    return ((c1 + c2 * y) / (1 + c3 * y)) ** m2


@pytest.mark.parametrize(("transfer", "name", "white"), [(16, "PQ", pq(203)), (18, "HLG", 0.75)])
def test_hdr_is_tone_mapped_and_said(transfer: int, name: str, white: float) -> None:
    """The white of paper is light grey, highlights above it keep their order, and black stays black."""
    said: list[str] = []
    pictures = Pictures("v.mp4", said.append)
    signals = [0.0, 0.5 * white, white, 0.5 * (1 + white), 1.0]
    levels = [int(pictures(hdr_grey(s, transfer))[9, 9, 1]) for s in signals]
    if "are tone-mapped" in said[0]:
        assert pictures.tone_mapped
        assert levels[0] <= 2
        assert all(low < high for low, high in itertools.pairwise(levels))
        assert 130 < levels[2] < 235, levels
        assert levels[4] > 240
    assert len(said) == 1
    assert f"HDR colours ({name})" in said[0]
