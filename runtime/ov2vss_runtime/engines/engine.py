"""What a stream needs from something that can run the four graphs.

The streaming logic (:mod:`ov2vss_runtime.stream.stream`) is written once against this interface. The runtime implements
it with ONNX Runtime; the training package implements it with the torch model, so evaluation during training and the
parity gates run the very same stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FrameFeatures:
    """Output of the backbone graph for one frame. The members belong to the engine; streams only pass them on.

    Attributes:
        context: region vectors of this frame, for use as the distant frame of others; small, safe to keep.
        payload: everything else; valid until the engine's next ``backbone`` call of the same stream.
    """

    context: Any
    payload: Any


class Engine(Protocol):
    """Runs the graphs of one model at one frame size."""

    size: tuple[int, int]
    """(H, W) of the frames it takes."""
    references: int
    """n, the depth of the state."""

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        """RGB uint8 ``[H, W, 3]`` of exactly ``size``."""
        ...

    def initial_state(self) -> Any:
        """A state of zeros, where the warm-up of a stream starts."""
        ...

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Any, Any]:
        """``(guidance, state_out)`` from this frame, the distant frame's context and the state ``gap`` frames back."""
        ...

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Logits ``[N, H/8, W/8]`` for class embeddings ``[N, D]``."""
        ...

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        """``tokens [4, M, C]`` or ``dense [D, hc, wc]`` of a frame as a numpy array, valid until the next frame."""
        ...

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit embeddings ``[len(texts), D]``."""
        ...
