"""Shot changes, seen in the pooled tokens that the backbone makes anyway."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import CutFeature


def token_distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], level: int = 2) -> float:
    """1 - correlation of two frames' tokens ``[levels, M, C]`` over positions and channels, 0 for equal frames, 0..2.

    The mean over positions is taken off first: two places under the same sky are alike on average.
    """
    a, b = (t[level] - t[level].mean(0) for t in (one, other))
    scale = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return 1.0 - float((a * b).sum()) / scale if scale > 1e-12 else 0.0


class CutDetector:
    """Feed it the tokens of every frame; it says where a new shot begins.

    Attributes:
        last: tokens of the frame before.
    """

    def __init__(self, feature: CutFeature) -> None:
        self.feature = feature
        self.last: npt.NDArray[np.float32] | None = None

    def __call__(self, tokens: npt.NDArray[np.float32]) -> bool:
        last, self.last = self.last, tokens.copy()
        return last is not None and token_distance(last, tokens, self.feature.level) > self.feature.threshold
