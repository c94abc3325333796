"""Ways to take something from the frame before: with a share of 0 each is no past at all, and on a still picture each
steadies noise."""

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from temporal_variants import WAYS, Clip, grid_of, table, timed, worth

from ov2vss_runtime.stream.flow import Motion
from tests.runtime.stream.test_propagation import picture

CELLS = (12, 20)


class StillClip(Clip):
    """One picture again and again, features with noise, and a decoder that compares them with two words."""

    def __init__(self, count: int = 6) -> None:
        rng = np.random.default_rng(0)
        dense = np.where(np.indices(CELLS)[1] < 10, 1.0, -1.0)[None] * np.array([1, -1, 0.5, -0.5])[:, None, None]
        features = []
        for _ in range(count):
            noisy = dense + 1.2 * rng.standard_normal((4, *CELLS))
            features.append({"dense": (noisy / np.linalg.norm(noisy, axis=0)).astype(np.float32)})
        words = np.array([[1, -1, 0.5, -0.5], [-1, 1, -0.5, 0.5]], np.float32)
        super().__init__(
            SimpleNamespace(engine=SimpleNamespace(can=SimpleNamespace(dense="dense"))),  # type: ignore[arg-type]
            [picture(0)] * count,
            features,
            [np.zeros((2, *CELLS), np.float32)] * count,
            (96, 160),
            words,
            1,
        )

    def decode(self, features: dict) -> np.ndarray:
        return np.einsum("nd,dhw->nhw", self.embeddings, features["dense"]).astype(np.float32)


def flips(maps: list[np.ndarray]) -> float:
    return float(np.mean([(a != b).mean() for a, b in pairwise(maps[1:])]))


@pytest.mark.parametrize("way", [w for w in WAYS if w != "none"])
def test_a_share_of_nothing_changes_nothing_and_a_share_steadies(way: str) -> None:
    clip = StillClip()
    plain = timed(WAYS["none"](clip, 0.0)).maps
    for a, b in zip(timed(WAYS[way](clip, 0.0)).maps, plain, strict=True):
        assert (a != b).mean() < 2e-3  # the length of a unit vector, in its last digit
    assert flips(timed(WAYS[way](clip, 0.7)).maps) < 0.8 * flips(plain)


def test_a_motion_on_a_coarser_grid_keeps_its_way_in_pixels() -> None:
    motion = Motion(np.full((8, 12, 2), (4, -2), np.float32), np.ones((8, 12), np.float32))
    coarse = grid_of(motion, (4, 6))
    assert coarse.trust.shape == (4, 6)
    np.testing.assert_allclose(coarse.flow, np.full((4, 6, 2), (2, -1)))


def test_the_share_is_chosen_on_the_first_half_and_reported_on_the_rest() -> None:
    def row(share: float, first: float, second: float, ms: float) -> dict:
        scores = {"vc8": 90.0, "flips": 1.0, "boundary_f": 50.0, "edge_lag": 0.0}
        return {
            "share": share,
            "ms": ms,
            "first half": scores | {"miou": first},
            "second half": scores | {"miou": second},
            "all": scores | {"miou": (first + second) / 2},
        }

    rows = {"none": [row(0, 70, 60, 10)], "average": [row(0.3, 71, 50, 11), row(0.7, 70.5, 69, 12)]}
    assert max(rows["average"], key=worth)["share"] == 0.3
    assert table(rows)[-1].startswith("| average | 0.3 | +1.00 | -10.00 | -4.50 |")
    assert table(rows)[-1].endswith("| 1.00 |")
