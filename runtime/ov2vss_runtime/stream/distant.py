"""Which frame is the distant one: the rule, and the frames that it chooses from."""

from __future__ import annotations

import random
from typing import Any, Literal, NamedTuple

from ov2vss_runtime.errors import OV2VSSError

DistantPolicy = Literal["farthest", "first", "reservoir"]
POLICIES: tuple[DistantPolicy, ...] = ("farthest", "first", "reservoir")


class Seen(NamedTuple):
    """A frame's context, and its timestamp in seconds or None."""

    context: Any
    time: float | None


class DistantFrame:
    """Chooses among the contexts of frames.

    Args:
        policy: ``farthest`` (the first or the last frame of the video, whichever is farther away in time), ``first``,
            or ``reservoir`` (a uniformly random past frame).
        seed: of ``reservoir``.
    """

    def __init__(self, policy: DistantPolicy, seed: int) -> None:
        if policy not in POLICIES:
            raise OV2VSSError(f"distant frame {policy!r} is not possible", "use farthest, first or reservoir")
        self.policy, self.seed = policy, seed
        self.reset()

    def reset(self) -> None:
        """Forget the video."""
        self.last: Seen | None = None
        self.random = random.Random(self.seed)
        self.restart()

    def restart(self) -> None:
        """Forget the frames so far; the last frame of the video stays known."""
        self.first: Seen | None = None
        self.kept: Seen | None = None
        self.seen = 0

    def context(self, own: Any, time: float | None) -> Any:
        """Context of the distant frame for the next frame, whose own context and timestamp are given."""
        if self.first is None:
            self.first = Seen(own, time)
        self.seen += 1
        if self.policy == "reservoir":
            # Each of the frames so far is kept with equal probability.
            if self.random.randrange(self.seen) == 0 or self.kept is None:
                self.kept = Seen(own, time)
            return self.kept.context
        if self.last is None or self.policy == "first":
            return self.first.context
        if time is None or self.first.time is None or self.last.time is None:
            return self.last.context
        return (self.last if self.last.time - time > time - self.first.time else self.first).context
