"""What a frame takes from the one before it: logits moved along the optical flow, and blended with its own.

For a cell of the present frame with logits ``z``, the past's logits ``p`` at the place that the flow points to, and the
flow's trust ``r`` (:mod:`ov2vss_runtime.stream.flow`)::

    a = share * r * clip(1 + lean * (doubt(z) - doubt(p)), 0, 1)        doubt(.) = max(0, 1 - margin / sure)
    blended = z + a * (p - z)

``margin`` is the distance of the two best logits: where the present is surer than the past, less of the past is taken.
A frame that the network does not see has the moved logits alone. The blend of one frame is the past of the next; a
stream keeps one frame's logits and no more.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import BundleError
from ov2vss_runtime.stream.flow import Gates, Motion, MotionEstimator, places, still
from ov2vss_runtime.stream.label_map import Labels, label_map, label_type, native

Logits = npt.NDArray[np.float32]
METHOD = "flow on logits"


@dataclass(frozen=True)
class Smoothing:
    """Constants of the blend; a bundle's manifest may have its own under ``temporal``.

    They were chosen on frames 0 to 49 of CamVid val, as they are and at JPEG quality 8, and on the training clips of
    DAVIS, with street-lite.

    Attributes:
        share: of the past where nothing speaks against it.
        lean: how much a difference in doubt changes the share.
        sure: margin of the best logit over the second from which on there is no doubt.
        gates: constants of the flow's trust.
    """

    share: float = 0.85
    lean: float = 2.0
    sure: float = 3.0
    gates: Gates = field(default_factory=Gates)

    @classmethod
    def from_manifest(cls, temporal: Mapping[str, Any]) -> Smoothing:
        """The constants of a manifest's field ``temporal``; what it leaves out is as in this program.

        Raises:
            BundleError: for another method, or constants that make no sense.
        """
        if temporal.get("method") == "affinity":  # in the graphs: nothing of it is the runtime's
            return cls()
        if temporal.get("method", METHOD) != METHOD:
            raise BundleError(
                f"the bundle propagates by {temporal['method']!r}", f"this program knows {METHOD!r}: update it"
            )
        own = {f.name for f in fields(cls)} - {"gates"}
        gates = {f.name for f in fields(Gates)}
        try:
            values = {k: float(v) for k, v in temporal.items() if k in own | gates}
            found = cls(
                **{k: v for k, v in values.items() if k in own},
                gates=Gates(**{k: v for k, v in values.items() if k in gates}),
            )
            if not (0 <= found.share < 1 and found.lean >= 0 and found.sure > 0):
                raise ValueError("share must be 0 to below 1, lean at least 0, sure above 0")
            gate = found.gates
            if not (min(gate.grey, gate.astray) > 0 and gate.noise >= 0 and 0 <= gate.lost < gate.found):
                raise ValueError("grey and astray must be above 0, lost below found")
        except (TypeError, ValueError) as error:
            raise BundleError(f"temporal in the manifest: {error}", "export the bundle again") from None
        return found

    def to_manifest(self) -> dict[str, Any]:
        """What :meth:`from_manifest` reads."""
        values = asdict(self)
        return {"method": METHOD} | {k: v for k, v in values.items() if k != "gates"} | values["gates"]


def propagate(
    past: Logits,
    flow: npt.NDArray[np.float32],
    size: tuple[int, int],
    present: Logits | None = None,
    trust: npt.NDArray[np.float32] | None = None,
    smoothing: Smoothing | None = None,
    threads: int = 1,
    confidence: npt.NDArray[np.float32] | None = None,
) -> tuple[Logits, Labels]:
    """Move logits, blend them with the present ones, and make the label map of the result, in one pass.

    Args:
        past: ``[N, h, w]`` of the frame that the flow points to.
        flow: ``[h, w, 2]`` in cells.
        size: (H, W) of the labels.
        present: ``[N, h, w]`` to blend with; None to move only.
        trust: ``[h, w]``, goes with ``present``.
        smoothing: constants of the blend.
        threads: of the native kernel.
        confidence: float32 ``size``, gets the label's share of the softmax.

    Returns:
        The blended logits, a new array, and the labels as :func:`ov2vss_runtime.stream.label_map.label_map` has them.
    """
    rules = smoothing or Smoothing()
    kernel = native()
    if kernel is None:
        moved = propagate_numpy(past, flow, present, trust, rules)
        return moved, label_map(moved, size, threads, confidence)
    labels: Labels = np.empty(size, label_type(len(past)))
    moved = np.empty(past.shape, np.float32)
    share = None if trust is None else trust * np.float32(rules.share)
    kernel.propagate(past, flow, present, share, rules.lean, rules.sure, moved, labels, threads, confidence)
    return moved, labels


def propagate_numpy(
    past: Logits,
    flow: npt.NDArray[np.float32],
    present: Logits | None,
    trust: npt.NDArray[np.float32] | None,
    rules: Smoothing,
) -> Logits:
    """The blended logits of :func:`propagate` in numpy, in the arithmetic of the kernel."""
    h, w = past.shape[1:]
    at = places(flow)
    x, y = np.clip(at[..., 0], 0, w - 1), np.clip(at[..., 1], 0, h - 1)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    dx, dy = x - x0.astype(np.float32), y - y0.astype(np.float32)
    corners = [y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1]
    weights = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]

    def moved(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        flat = planes.reshape(*planes.shape[:-2], h * w)
        a, b, c, d = (weight * flat[..., corner] for weight, corner in zip(weights, corners, strict=True))
        return (a + b) + (c + d)

    if present is None or trust is None:
        return moved(past)
    leaning = np.clip(1 + np.float32(rules.lean) * (doubt(present, rules.sure) - moved(doubt(past, rules.sure))), 0, 1)
    share = trust * np.float32(rules.share) * leaning.astype(np.float32)
    return present + share * (moved(past) - present)


def doubt(logits: Logits, sure: float) -> npt.NDArray[np.float32]:
    """``[h, w]``: 1 where the two best logits are equal, 0 where they are ``sure`` or more apart."""
    if len(logits) == 1:
        return np.zeros(logits.shape[1:], np.float32)
    second, best = np.partition(logits, len(logits) - 2, axis=0)[-2:]
    return np.maximum(1 - (best - second) * np.float32(1 / sure), 0).astype(np.float32)


class Propagator:
    """The past of one stream: logits, and the motion since.

    Give every frame that is shown to :meth:`look` first; then either :meth:`blend` the logits that the network found in
    it, or :meth:`carry` the past over.

    Args:
        smoothing: constants; None for this program's own.
        smooth: whether :meth:`blend` takes anything from the past.
        threads: of the kernel.
    """

    def __init__(self, smoothing: Smoothing | None = None, smooth: bool = True, threads: int = 1) -> None:
        self.rules, self.smooth, self.threads = smoothing or Smoothing(), smooth, threads
        self._estimate = MotionEstimator(self.rules.gates)
        self.drop()

    def forget(self) -> None:
        """A new video, shot or size: nothing is taken from before."""
        self._estimate.forget()
        self.drop()

    def drop(self) -> None:
        """New words: the past's logits are of no use. The last picture stays, and one frame fills the logits again."""
        self.past: Any = None  # logits [N, h, w]
        self.cells: tuple[int, int] | None = None
        self.words: Hashable = None
        self.motion: Motion | None = None

    def look(self, frame: npt.NDArray[np.uint8]) -> Motion | None:
        """See the next frame (RGB ``[H, W, 3]`` uint8, as the network sees it); its motion, where there is a past."""
        step = self._estimate(frame, self.cells)
        if step is None or step.lost:
            self.drop()
            return None
        assert self.motion is not None
        self.motion = step.after(self.motion)
        return step

    def has(self, words: Hashable) -> bool:
        """Whether there are logits of these words to carry over."""
        return self.past is not None and self.words == words

    def blend(
        self, logits: Logits, words: Hashable, size: tuple[int, int], confidence: npt.NDArray[np.float32] | None = None
    ) -> tuple[Logits, Labels]:
        """Blend the present frame's logits with the past, and make them the past."""
        if self.smooth and self.past is not None and self.motion is not None and self.words == words:
            flow, trust = self.motion.flow, self.motion.trust
            logits, labels = propagate(self.past, flow, size, logits, trust, self.rules, self.threads, confidence)
        else:
            labels = label_map(logits, size, self.threads, confidence)
        self.keep(logits, words)
        return logits, labels

    def keep(self, logits: Logits, words: Hashable) -> None:
        """Make these logits of the present frame the past."""
        logits.flags.writeable = False  # results show the same array
        self.cells = (logits.shape[1], logits.shape[2])
        self.past, self.words, self.motion = logits, words, still(self.cells)

    def carry(
        self, size: tuple[int, int], confidence: npt.NDArray[np.float32] | None = None
    ) -> tuple[Logits | None, Labels]:
        """The past's logits and labels, moved to the present frame. The past stays: it is moved once, however far."""
        assert self.past is not None, "has() comes first"
        assert self.motion is not None
        return propagate(self.past, self.motion.flow, size, threads=self.threads, confidence=confidence)

    # -- to another process ----------------------------------------------------------------------------------------

    def save(self) -> dict[str, npt.NDArray[Any]]:
        """What the next frames depend on, words aside."""
        found: dict[str, npt.NDArray[Any]] = {}
        if self._estimate.last is not None:
            found["fine"], found["coarse"] = self._estimate.last
        if self.past is not None and self.motion is not None:
            found |= {"past": self.past, "flow": self.motion.flow, "trust": self.motion.trust}
        return found

    def load(self, arrays: Mapping[str, npt.NDArray[Any]], words: Hashable) -> None:
        """Go on where :meth:`save` was called; the words of its logits are ``words``, or None if they have changed."""
        self.forget()
        if "fine" in arrays:
            self._estimate.last = (arrays["fine"], arrays["coarse"])
        if "past" in arrays and words is not None:
            self.past, self.words, self.cells = arrays["past"], words, arrays["past"].shape[1:]
            self.motion = Motion(arrays["flow"], arrays["trust"])
