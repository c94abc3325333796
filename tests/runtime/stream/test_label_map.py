import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream import label_map as labelmap

CASES = [
    (11, 45, 60, 360, 480),
    (124, 30, 54, 240, 427),
    (3, 9, 7, 5, 50),
    (1, 4, 4, 32, 32),
    (2, 1, 1, 7, 5),
    (5, 40, 30, 17, 13),
    (300, 8, 12, 64, 96),
]


def smooth_logits(classes: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, h // 4 + 2, w // 4 + 2, generator=generator)
    return F.interpolate(coarse, (h, w), mode="bicubic")[0].contiguous()


def reference(logits: torch.Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels by torch, and where the two best values are too close to call in float32."""
    full = F.interpolate(logits[None].double(), size, mode="bilinear", align_corners=False)[0]
    top = full.topk(min(2, full.shape[0]), dim=0).values
    tie = (top[0] - top[-1]) < 1e-5 if full.shape[0] > 1 else torch.zeros(size, dtype=torch.bool)
    return full.argmax(0).numpy(), tie.numpy()


@pytest.mark.parametrize(("classes", "h", "w", "height", "width"), CASES)
@pytest.mark.parametrize("path", ["native", "numpy"])
def test_equals_torch_except_at_ties(path: str, classes: int, h: int, w: int, height: int, width: int) -> None:
    logits = smooth_logits(classes, h, w)
    expected, tie = reference(logits, (height, width))
    if path == "native":
        assert labelmap.native() is not None, "the extension was not built"
        labels = labelmap.label_map(logits.numpy(), (height, width), threads=2)
    else:
        labels = labelmap.label_map_numpy(logits.numpy(), (height, width))
    assert labels.shape == (height, width)
    assert labels.dtype == (np.uint8 if classes <= 254 else np.uint16)
    assert tie.mean() < 0.01
    assert np.array_equal(labels[~tie], expected[~tie])


def test_exact_ties_go_to_the_lower_index() -> None:
    logits = np.zeros((4, 3, 3), np.float32)
    logits[3] = -1
    for labels in (labelmap.label_map(logits, (24, 24)), labelmap.label_map_numpy(logits, (24, 24))):
        assert (labels == 0).all()


@pytest.mark.parametrize("threads", [1, 2, 5, 64])
def test_threads_do_not_change_the_result(threads: int) -> None:
    logits = smooth_logits(20, 30, 40).numpy()
    assert np.array_equal(labelmap.label_map(logits, (241, 317), threads), labelmap.label_map(logits, (241, 317), 1))


def test_a_narrow_winner_inside_a_cell_is_found() -> None:
    """Class 2 is best only in the middle of the cell, at none of its corners."""
    logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.6, 0.6]]], np.float32)
    labels = labelmap.label_map(logits, (1, 64))
    assert np.array_equal(labels, labelmap.label_map_numpy(logits, (1, 64)))
    assert set(np.unique(labels)) == {0, 1, 2}


def test_fallback_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = smooth_logits(6, 10, 12).numpy()
    with_native = labelmap.label_map(logits, (80, 96))
    monkeypatch.setattr(labelmap, "native", lambda: None)
    assert (labelmap.label_map(logits, (80, 96)) == with_native).mean() > 0.9999


def test_empty_logits_are_refused() -> None:
    with pytest.raises(OV2VSSError, match="non-empty"):
        labelmap.label_map(np.zeros((0, 3, 3), np.float32), (8, 8))
