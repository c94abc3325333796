"""Which frames the network sees, when it need not see all of them; the others get its logits moved along the flow."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.flow import Motion

KeyFrames = int | Literal["auto"]
FARTHEST_KEY_FRAME = 8
"""Frames at most from one key frame to the next, with ``auto``."""
FAR_MOVED = 0.0375
"""Share of the picture's width: where a tenth of the picture has moved farther since the last key frame, ``auto`` asks
for the next one. What moves is what goes wrong: on frames 0 to 49 of CamVid val this lay 0.3 points of mIoU above the
curve of fixed distances, gathered distrust alone up to 0.3 below it."""
ENOUGH_TRUST = 0.25
"""Mean trust in the motion since the last key frame below which ``auto`` asks for the next one too. Trust multiplies
from frame to frame and is 0 where the picture came in from outside: it counts distrust and new area in one."""


def parse_keyframes(text: str) -> KeyFrames:
    """``"auto"``, or a number of at least 1."""
    if text == "auto":
        return "auto"
    if text.isdecimal() and 1 <= int(text) <= 1000:
        return int(text)
    raise OV2VSSError(f"key frames {text!r}", "give a number from 1 (every frame) to 1000, or auto")


def check_keyframes(keyframes: object) -> None:
    """Raises OV2VSSError unless it is one of :data:`KeyFrames`."""
    if keyframes != "auto":
        if not isinstance(keyframes, int) or isinstance(keyframes, bool):
            raise OV2VSSError(f"keyframes={keyframes!r}", "give a number, or 'auto'")
        parse_keyframes(str(keyframes))


def due(keyframes: KeyFrames, since: int, motion: Motion | None) -> bool:
    """Whether the network should see this frame.

    Args:
        keyframes: every so many frames, or ``auto``.
        since: frames from the last one that it saw to this one.
        motion: from this frame to that one; None where it was not found (a cut).
    """
    if motion is None:
        return True
    if keyframes == "auto":
        way = np.hypot(motion.flow[..., 0], motion.flow[..., 1])
        far = float(np.percentile(way, 90)) > FAR_MOVED * way.shape[1]
        return far or since >= FARTHEST_KEY_FRAME or float(motion.trust.mean()) < ENOUGH_TRUST
    return since >= keyframes


def spacing(gap: int, keyframes: KeyFrames) -> int:
    """A gap in frames of the video as a number of key frames; with ``auto`` it is the most that may be needed."""
    return gap if keyframes == "auto" else max(1, round(gap / keyframes))
