import numpy as np
import pytest

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.preprocess import aspect_differs, parse_size, resize_frame, snap


@pytest.mark.parametrize(
    ("size", "snapped"),
    [((360, 640), (352, 640)), ((480, 854), (480, 864)), ((352, 640), (352, 640)), ((10, 50), (64, 64))],
)
def test_snap(size: tuple[int, int], snapped: tuple[int, int]) -> None:
    assert snap(size) == snapped


def test_parse_size() -> None:
    assert parse_size("352x640") == (352, 640)
    for text in ("352", "352*640", "axb", "0x64", "-1x64"):
        with pytest.raises(OV2VSSError, match="HEIGHTxWIDTH"):
            parse_size(text)


def test_resize_stretches_and_averages() -> None:
    frame = np.zeros((80, 160, 3), np.uint8)
    frame[::2] = 255
    small = resize_frame(frame, (20, 40))
    assert small.shape == (20, 40, 3)
    assert np.abs(small.astype(int) - 128).max() <= 1  # area averaging; sampling would give stripes
    assert resize_frame(frame, (80, 160)) is frame


def test_aspect() -> None:
    assert not aspect_differs((540, 960), (352, 640))
    assert aspect_differs((360, 480), (352, 640))
