"""What a stream does beyond labelling every frame with its best class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.keyframes import KeyFrames, check_keyframes
from ov2vss_runtime.stream.tiles import Tiles


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
        smooth: blend every frame with the one before it, moved along the optical flow
            (:mod:`ov2vss_runtime.stream.propagation`). None leaves it to who makes the stream: a
            :class:`~ov2vss_runtime.stream.stream.Stream` does not, a Segmenter that runs a source does.
        keyframes: run the network on every K-th frame and move its logits along the flow between; ``auto`` where
            the motion asks for it.
        synonyms: ``average`` them into one embedding a class, or ``max``: each has a row of its own and a pixel gets
            the class of the best row. None leaves it to the bundle.
        background: words that take part but name nothing: pixels that one of them wins are unknown.
        drop_absent: leave out words whose share of the softmax stays below this everywhere in a frame; all words are
            looked at again at cuts and every few frames. 0 for none.
        tiles: look at every frame in windows (:mod:`ov2vss_runtime.stream.tiles`); None for one pass.
    """

    confidence: bool = False
    logits: bool = False
    unknown_below: float = 0.0
    reset_on_cut: bool = False
    top_classes: int = 0
    seed: int = 0
    smooth: bool | None = None
    keyframes: KeyFrames = 1
    synonyms: Literal["average", "max"] | None = None
    background: tuple[str, ...] = ()
    drop_absent: float = 0.0
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.unknown_below <= 1:
            raise OV2VSSError(f"unknown_below={self.unknown_below}", "give a probability, 0 to 1")
        if self.top_classes < 0:
            raise OV2VSSError(f"top_classes={self.top_classes}", "give a number of classes, or 0 for all")
        if not 0 <= self.drop_absent < 1:
            raise OV2VSSError(f"drop_absent={self.drop_absent}", "give a share, 0 to below 1")
        check_keyframes(self.keyframes)

    @property
    def needs_confidence(self) -> bool:
        """Whether somebody asks for confidence, or it decides what is unknown."""
        return self.confidence or self.unknown_below > 0

    @property
    def propagates(self) -> bool:
        """Whether a frame's labels depend on earlier frames' logits."""
        return bool(self.smooth) or self.keyframes != 1
