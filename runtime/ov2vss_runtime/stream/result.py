"""What a stream says about one frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.outputs.overlay import Overlay
from ov2vss_runtime.stream.label_map import Labels


@dataclass(frozen=True)
class Result:
    """What a stream says about one frame.

    Attributes:
        index: number of the frame in this stream, from 0.
        time: its timestamp in seconds, or None where the source has none.
        frame: the RGB frame as it came in, ``[h, w, 3]`` uint8.
        labels: index into ``names`` per pixel of ``frame``, ``[h, w]`` uint8 (uint16 above 254 names); unknown is the
            largest value of the type.
        names: the words.
        confidence: the label's share of the softmax, ``[h, w]`` float32 0..1; None unless asked for.
        logits: ``[K, H/8, W/8]`` float32 at the model's size, of the words ``classes``; None where the label map was
            made on a GPU and they were not asked for.
        classes: indices into ``names`` of the rows of ``logits``: all, or those that were kept as candidates; several
            rows of one class where synonyms have rows of their own, -1 for background words.
        held: the network did not see this frame, the labels are those of an earlier one as they were.
        propagated: the network did not see this frame, the labels are those of an earlier one moved along the flow.
        age: frames from the one that the network saw last to this one; 0 where it saw this one.
        cut: a new shot began here and the state was restarted.
        pts: timestamp in the source's own units, and ``name`` of the frame, where the source has them.
    """

    index: int
    time: float | None
    frame: npt.NDArray[np.uint8]
    labels: Labels
    names: list[str]
    confidence: npt.NDArray[np.float32] | None = None
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    classes: npt.NDArray[np.intp] | None = None
    held: bool = False
    cut: bool = False
    pts: int | None = None
    name: str | None = None
    propagated: bool = False
    age: int = 0

    def __repr__(self) -> str:
        """Number, time, size, and the largest words of the frame."""
        counts = np.bincount(self.labels.ravel(), minlength=self.unknown + 1)
        shares = [(counts[k] / self.labels.size, name) for k, name in enumerate(self.names) if counts[k]]
        largest = ", ".join(f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True)[:4])
        time = "" if self.time is None else f", {self.time:.2f} s"
        marks = "".join(f", {key}" for key in ("held", "cut") if getattr(self, key))
        h, w = self.labels.shape
        return f"<Result {self.index}{time}: {h}x{w}, {largest or 'all unknown'}{marks}>"

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the frame and of the labels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def unknown(self) -> int:
        """The label of pixels that are none of the words."""
        return int(np.iinfo(self.labels.dtype).max)

    def overlay(self, alpha: float = 0.5) -> npt.NDArray[np.uint8]:
        """The frame with coloured labels and a legend, RGB ``[h, w, 3]`` uint8. For many frames keep one
        :class:`ov2vss_runtime.outputs.overlay.Overlay`, which draws its legend once."""
        return Overlay(self.names, self.frame.shape[:2], alpha).draw(self.frame, self.labels)
