"""How far a long job is: a bar on a terminal, and a line of text every half minute where there is none."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger("ov2vss")
SECONDS_BETWEEN_LINES = 30.0
"""Seconds between two lines."""
FIRST_ESTIMATE_AFTER = 5.0
"""Seconds after which a job says for the first time how long it will take, if that is longer than
:data:`SECONDS_BETWEEN_LINES`."""


def duration(seconds: float) -> str:
    """A time span in the words that people use for it.

    >>> [duration(s) for s in (8, 95, 4000, 200_000)]
    ['8 s', '2 min', '1 h 7 min', '2 days 8 h']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


class Progress:
    """Counts the parts of a job; use it as a context manager and call :meth:`update` after each part.

    Args:
        total: parts in all.
        what: the job, as the line names it.
        unit: one part.
        done: parts that were done before (a job that goes on).
        show: False: say nothing at all.
        leave: leave the bar on the terminal when the job is done.
    """

    def __init__(
        self, total: int, what: str, unit: str = "it", done: int = 0, show: bool = True, leave: bool = False
    ) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, desc=what, unit=unit, disable=not (show and terminal), leave=leave)
        self.lines = show and not terminal
        self.total, self.what, self.unit, self.done, self.before = total, what, unit, done, done
        self.note = ""
        self.began = self.said = time.monotonic()
        self.estimated = False

    def update(self, note: str = "") -> None:
        """One part more; ``note`` stands at the end of the line, such as a loss."""
        self.done += 1
        self.note = note or self.note
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update()
        now = time.monotonic()
        if not self.lines or self.done >= self.total:
            return
        left = (now - self.began) / (self.done - self.before) * (self.total - self.done)
        first = not self.estimated and now - self.began >= FIRST_ESTIMATE_AFTER
        self.estimated |= first
        if (first and left >= SECONDS_BETWEEN_LINES) or now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            rate = (self.done - self.before) / max(now - self.began, 1e-9)
            speed = f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{self.unit}"
            end = f", {self.note}" if self.note else ""
            log.info(
                "%s: %d of %d (%.0f %%), %s, about %s left%s",
                self.what, self.done, self.total, 100 * self.done / self.total, speed, duration(left), end,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


@contextmanager
def heartbeat(say: Callable[[float], str]) -> Iterator[None]:
    """Log ``say(seconds so far)`` every half minute, for a job whose parts cannot be counted from inside."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    stop, began = threading.Event(), time.monotonic()

    def beat() -> None:
        while not stop.wait(SECONDS_BETWEEN_LINES):
            log.info("%s", say(time.monotonic() - began))

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
