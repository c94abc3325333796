"""Time per stage, accumulated: cheap enough to be always on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
ORDER = ("decode", "preprocess", "backbone", "step", "decoder", "labels", "overlay", "encode", "masks")
"""Stages in the order in which a frame passes them."""


class Stopwatch:
    """Seconds and calls per named stage.

    >>> watch = Stopwatch()
    >>> with watch("decode"):
    ...     pass
    >>> list(watch.seconds)
    ['decode']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Iterate, counting the time that each next item takes as ``stage``."""
        iterator = iter(items)
        try:
            while True:
                with self(stage):
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                yield item
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def per_frame_ms(self, frames: int) -> dict[str, float]:
        """Milliseconds a frame, by stage."""
        order = [name for name in ORDER if name in self.seconds] + [n for n in self.seconds if n not in ORDER]
        return {name: 1000 * self.seconds[name] / max(frames, 1) for name in order}
