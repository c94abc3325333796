"""What a stream does beyond labelling every frame with its best class."""

from __future__ import annotations

from dataclasses import dataclass

from ov2vss_runtime.errors import OV2VSSError


@dataclass(frozen=True)
class StreamOptions:
    """What a stream does beyond labelling every frame with its best class.

    Attributes:
        confidence: also give every pixel the label's share of the softmax over the words.
        logits: give the logits too where they would stay on a GPU; on a processor they are always there.
        unknown_below: pixels whose confidence is lower are labelled unknown; 0 for none.
        reset_on_cut: restart the state where a new shot begins.
        top_classes: decode only the most likely words of a shot, so many; 0 for all.
        seed: of the policy ``reservoir``.
    """

    confidence: bool = False
    logits: bool = False
    unknown_below: float = 0.0
    reset_on_cut: bool = False
    top_classes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.unknown_below <= 1:
            raise OV2VSSError(f"unknown_below={self.unknown_below}", "give a probability, 0 to 1")
        if self.top_classes < 0:
            raise OV2VSSError(f"top_classes={self.top_classes}", "give a number of classes, or 0 for all")
