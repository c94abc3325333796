"""What training and evaluation need from a set of labelled videos."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary


class CorruptFile(OV2VSSError):
    """One image or mask that cannot be used; training and evaluation skip it unless told to be strict."""


class VideoSet(Protocol):
    """Videos with raw mask ids: 0 and 255 void, ``k`` in 1..K the k-th class."""

    classes: Vocabulary
    unseen: list[int]
    """Indices into ``classes`` of the classes whose labels training does not see."""
    background: int | None
    """Index of the class of all pixels that no other class has, the last one; None where there is no such class."""
    videos: list[str]

    def length(self, video: int) -> int:
        """Number of frames."""
        ...

    def frame_name(self, video: int, index: int) -> str: ...

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        """RGB ``[h, w, 3]``."""
        ...

    def labelled(self, video: int) -> list[int]:
        """Indices of the frames that have a mask."""
        ...

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        """Raw ids ``[h, w]``."""
        ...
