"""Candidate classes of a shot: of a large vocabulary only the words that come near to winning somewhere are decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FRAMES_BETWEEN_LOOKS = 10
"""Frames between two looks at the whole vocabulary."""
FADING_PER_LOOK = 0.02
"""Cosine by which an earlier look counts for less at every new one."""


class ClassPruner:
    """Chooses the ``keep`` classes whose cosine to the dense features comes nearest to the best one's, at any position.

    A class that never rises anywhere is dropped. The whole vocabulary is looked at in the first frame of a shot and
    every :data:`FRAMES_BETWEEN_LOOKS` frames after it; what came near in earlier looks fades by
    :data:`FADING_PER_LOOK` each time. The cosines are those of the unrefined text, one matrix product a look; the
    decoder's logits of the classes that stay are exactly those of the whole vocabulary.

    Args:
        keep: so many at most; 0 for all.
        absent: leave classes out whose share of the softmax over ``temperature`` times the cosines stays below this
            everywhere (at least one stays): words that are not in the picture take pixels from those that are.
    """

    def __init__(self, keep: int = 0, absent: float = 0.0, temperature: float = 40.0) -> None:
        self.keep, self.absent, self.temperature = keep, absent, temperature
        self.restart()

    def restart(self) -> None:
        """A new shot or new words: look at once."""
        self._nearest: npt.NDArray[np.float32] | None = None
        self._active: npt.NDArray[np.intp] | None = None
        self._age = 0

    def due(self) -> bool:
        """Whether :meth:`look` is due before this frame's :meth:`active`."""
        return self._active is None or self._age >= FRAMES_BETWEEN_LOOKS

    def look(self, dense: npt.NDArray[np.float32], embeddings: npt.NDArray[np.float32]) -> None:
        """Choose anew.

        Args:
            dense: unit features of the frame, ``[D, h, w]``.
            embeddings: of all classes, ``[N, D]``.
        """
        cosines = embeddings @ dense.reshape(len(dense), -1)
        nearest = (cosines - cosines.max(0)).max(1)
        if self._nearest is not None:
            nearest = np.maximum(nearest, self._nearest - FADING_PER_LOOK)
        self._nearest = nearest
        keep = min(self.keep or len(nearest), len(nearest))
        # Of equals (all that win somewhere are 0) the first in the list, in every runtime.
        active = np.sort(np.argsort(-nearest, kind="stable")[:keep])
        if self.absent > 0:
            best = self._best_shares(cosines)
            present = active[best[active] >= self.absent]
            active = present if len(present) else active[[np.argmax(best[active])]]
        self._active = active
        self._age = 0

    def _best_shares(self, cosines: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Largest share of the softmax over all classes that each has anywhere; cosines ``[N, positions]``."""
        scaled = np.exp(self.temperature * (cosines - cosines.max(0)))
        shares: npt.NDArray[np.float32] = (scaled / scaled.sum(0)).max(1)
        return shares

    def active(self) -> npt.NDArray[np.intp]:
        """Indices of the classes to decode in this frame, ascending."""
        assert self._active is not None, "look() comes first"
        self._age += 1
        return self._active

    def save(self) -> dict[str, npt.NDArray[Any]]:
        """What :meth:`load` goes on from."""
        if self._active is None or self._nearest is None:
            return {}
        return {"nearest": self._nearest, "active": self._active, "age": np.array(self._age)}

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.restart()
        if arrays:
            self._nearest, self._active = arrays["nearest"], arrays["active"]
            self._age = arrays["age"].item()
