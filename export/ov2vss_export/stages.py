"""Where an export's time goes: its stages by name, said while they run and when all is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ov2vss_runtime.progress import duration, heartbeat

log = logging.getLogger("ov2vss")
SMALLEST_SHARE_TOLD = 0.02
"""Share of the whole under which a stage is not worth a word."""


@dataclass
class Stages:
    """Seconds of the clock, and of the processors, by stage.

    Attributes:
        planned: number of stages that will come, for the line of a running one.
    """

    planned: int
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    _begun: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what happens inside; without a terminal, a line every half minute says where it is."""
        number = list(dict.fromkeys([*self.wall, name])).index(name) + 1
        wall, processor = time.perf_counter(), time.process_time()

        def line(seconds: float) -> str:
            whole = time.perf_counter() - self._begun
            return (
                f"export: {name} (stage {min(number, self.planned)} of {self.planned}), {duration(seconds)} so far, "
                f"{duration(whole)} in all"
            )

        with heartbeat(line):
            yield
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        self.processor[name] = self.processor.get(name, 0.0) + time.process_time() - processor

    def summary(self) -> str:
        """Shares of the processors' time, the largest first."""
        total = sum(self.processor.values())
        parts = sorted(self.processor.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts if seconds >= SMALLEST_SHARE_TOLD * total)
        return f"{total:.0f} processor seconds: {told}"

    def record(self) -> dict[str, float]:
        """Processor seconds by stage, for JSON."""
        return {name: round(seconds, 2) for name, seconds in self.processor.items()}
