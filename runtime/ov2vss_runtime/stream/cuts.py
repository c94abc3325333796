"""Shot changes, seen in the pooled tokens that the backbone makes anyway."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVEL = 2
"""Index of the level that is looked at: stride 16."""
THRESHOLD = 0.6
"""Distance of neighbouring frames from which on they are different shots. Measured with street-lite on eleven videos:
0.43 at most within a shot (a fast pan), 0.80 at least between frames of different videos."""


def token_distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """1 - correlation of two frames' tokens ``[levels, M, C]`` over positions and channels, 0 for equal frames, 0..2.

    The mean over positions is taken off first: two places under the same sky are alike on average.
    """
    a, b = (t[LEVEL] - t[LEVEL].mean(0) for t in (one, other))
    scale = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return 1.0 - float((a * b).sum()) / scale if scale > 1e-12 else 0.0


class CutDetector:
    """Feed it the tokens of every frame; it says where a new shot begins."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._last: npt.NDArray[np.float32] | None = None

    def __call__(self, tokens: npt.NDArray[np.float32]) -> bool:
        last, self._last = self._last, tokens.copy()
        return last is not None and token_distance(last, tokens) > self.threshold
