"""What a stream needs from something that can run the graphs of a model.

The streaming logic (:mod:`ov2vss_runtime.stream.stream`) is written once against this interface. The runtime implements
it with ONNX Runtime, OpenVINO and TensorRT; the training package implements it with the torch model, so evaluation
during training and the parity gates run the very same stream.

Contexts, guidance and states belong to the engine that made them: a stream keeps them and hands them back, and only
:meth:`Engine.to_host` and :meth:`Engine.from_host` turn them into arrays and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FrameFeatures:
    """Output of the backbone graph for one frame. The members belong to the engine; streams only pass them on.

    Attributes:
        context: what this frame gives to others as their distant frame; small, safe to keep.
        payload: everything else; valid until the engine's next ``backbone`` call of the same stream.
    """

    context: Any
    payload: Any


@dataclass(frozen=True)
class CutFeature:
    """Where shot changes are seen.

    Attributes:
        name: the feature that neighbouring frames are compared by, ``[levels, M, C]``.
        level: index into its first axis.
        threshold: distance (1 - correlation) from which on two frames are of different shots.
    """

    name: str = "tokens"
    level: int = 2
    threshold: float = 0.6


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, and what its model needs.

    Attributes:
        device_labels: :meth:`Engine.labels` makes the label map where the logits are, so that they need not come down.
        device_blend: the past's logits can be moved and blended there too.
        distant: frames are looked at beside a distant frame.
        warmup: runs of the step on a stream's first frame, each fed its own output, before the frame itself.
        cut: the feature that shot changes are seen in; None if there is none.
        dense: name of the unit features ``[D, h, w]`` that words are compared with; None if there are none.
        temperature: of cosines, where words are compared with ``dense`` alone.
        identity: names model and arithmetic: a saved stream goes on only on an engine with the same. Empty: unknown.
        offset, trained: added to the logits of words that training saw, so that they do not swallow the others.
    """

    device_labels: bool = False
    device_blend: bool = False
    distant: bool = True
    warmup: int = 0
    cut: CutFeature | None = CutFeature()
    dense: str | None = "dense"
    identity: str = ""
    temperature: float = 40.0
    offset: float = 0.0
    trained: frozenset[str] = frozenset()


class Engine(Protocol):
    """Runs the graphs of one model at one frame size."""

    size: tuple[int, int]
    """(H, W) of the frames it takes."""
    can: Capabilities

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
        """Logits ``[N, h, w]`` for class embeddings ``[N, D]``."""
        ...

    def labels(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Best class of every pixel of ``size`` (H, W), where ``can.device_labels``."""
        ...

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        """A feature that ``can`` names as a numpy array, valid until the next frame."""
        ...

    def blame(self, features: FrameFeatures, guidance: Any) -> str:
        """The first graph whose output is not finite, where the logits are not."""
        ...

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit embeddings ``[len(texts), D]``."""
        ...

    def to_host(self, value: Any) -> Arrays:
        """A context or a state as numpy arrays by name, to be kept outside of the engine."""
        ...

    def from_host(self, arrays: Arrays) -> Any:
        """Inverse of :meth:`to_host`, bit for bit."""
        ...


class BlendingEngine(Engine, Protocol):
    """An engine with ``can.device_blend``: logits ``[N, h, w]`` stay on its device, as arrays of its own."""

    def device_logits(self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]) -> Any:
        """:meth:`decode` whose result stays there."""
        ...

    def device_propagate(
        self,
        past: Any,
        present: Any | None,
        places: npt.NDArray[np.float32],
        share: npt.NDArray[np.float32] | None,
        lean: float,
        sure: float,
    ) -> Any:
        """The past at ``places`` ``[h, w, 2]`` (x, y, in cells), blended with ``present`` by ``share`` ``[h, w]``."""
        ...

    def device_labels(self, logits: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label map of ``size`` (H, W)."""
        ...
