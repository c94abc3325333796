"""Timestamps that jump, are missing, or begin late: in the picture, and in the sound that follows it."""

from fractions import Fraction

import pytest

from ov2vss_runtime.video.timeline import FollowedClock, Timeline

MILLI = Fraction(1, 1000)


def place(stamps: list[int | None], **options) -> list[int]:
    line = Timeline(MILLI, 40, **options)
    return [line.place(stamp, 40) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "wanted"),
    [
        ([0, 40, 80], [0, 40, 80]),
        ([50_001_000, 50_001_040], [0, 40]),  # a clock that began long before
        ([500, 600, 700, 800, 900, 500, 540], [0, 100, 200, 300, 400, 440, 480]),  # two recordings, one after the other
        ([900, 940, 0, 400, 440, 0, 40], [0, 40, 80, 480, 520, 560, 600]),  # three
        ([0, 40, 80, 120, 80, 120, 160, 200], [0, 40, 80, 120, 121, 122, 160, 200]),  # overlapping ones
        ([0, 40, 80, 0, 40, 80, 120], [0, 40, 80, 81, 121, 161, 201]),  # very short ones
        ([0, 40, 40, 120], [0, 40, 41, 120]),  # one moment twice: no jump
        ([0, 0, 0, 40, 40, 40], [0, 1, 2, 40, 41, 42]),
        ([0, 40, 20, 120], [0, 40, 41, 120]),
        ([1560, 1520, 1600, 1480, 1640], [0, 1, 40, 41, 80]),  # in disorder
        ([None, None, None], [0, 40, 80]),  # an elementary stream
        ([None, 5000, 5040, None, 5120], [0, 40, 80, 120, 160]),
        ([0, 40, 9000, 9040], [0, 40, 9000, 9040]),  # a pause
    ],
)
def test_timestamps_begin_at_0_and_rise(stamps: list[int | None], wanted: list[int]) -> None:
    assert place(stamps) == wanted


def test_a_free_clock_that_jumps_forward_goes_on_too() -> None:
    assert place([0, 40, 60_000, 60_040], jumps_forward=True) == [0, 40, 80, 120]
    assert place([0, 40, 60_000, 60_040]) == [0, 40, 60_000, 60_040]


def test_an_origin_before_the_first_picture_is_kept() -> None:
    """Sound that begins earlier: the picture comes after it, as in the source."""
    assert place([1500, 1540], origin=1000) == [500, 540]


def test_sound_is_moved_by_what_the_picture_was_moved() -> None:
    video = Timeline(MILLI, 40)
    clock = FollowedClock(video, Fraction(1, 48000))
    for stamp in range(5000, 6000, 40):
        video.place(stamp, 40)
    clock = FollowedClock(video, Fraction(1, 48000))

    def sound(stamp: float, final: bool = False) -> float | None:
        placed = clock.place(round(stamp * 48000), final)
        if placed is not None:
            clock.accept(placed, 1024)
        return None if placed is None else placed / 48000

    assert sound(5.0) == 0
    assert sound(5.96) == pytest.approx(0.96)
    assert sound(5.02) is None  # it jumped; the picture has not yet
    for stamp in range(5000, 6000, 40):
        video.place(stamp, 40)
    assert video.jumps == 1
    assert sound(5.02) == pytest.approx(1.02)
    assert sound(5.9) == pytest.approx(1.9)
    # A jump that the picture never makes: the sound goes on where it was.
    assert sound(5.0) is None
    assert sound(5.0, final=True) == pytest.approx(1.9 + 1024 / 48000)
