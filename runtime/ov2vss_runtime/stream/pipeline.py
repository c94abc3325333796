"""Reading, computing and writing at the same time, through bounded queues.

A reader thread decodes ahead, the caller's thread computes (a stream's frames depend on each other), a writer thread
draws and encodes. Memory is bounded by the queues.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

from ov2vss_runtime.video.source import VideoFrame

T = TypeVar("T")
PATIENCE = 1.0
"""Seconds that a reader gets to end."""
AHEAD = 4
"""Frames that wait at most between two threads."""


class Prefetch(Generic[T]):
    """Items of an iterable, made by a thread of their own; use it in a ``with`` block and iterate over it.

    Args:
        items: is iterated over in the thread.
        size: items that may wait.
        drop: when the queue is full, throw the oldest away (a live source) instead of letting ``items`` wait. The next
            one that is kept then says in its place that frames are missing before it (``gap``).
        wake: called when nothing more is wanted, to end a read that waits.

    Attributes:
        dropped: items that were thrown away.
    """

    def __init__(
        self, items: Iterable[T], size: int = AHEAD, drop: bool = False, wake: Callable[[], None] | None = None
    ) -> None:
        self._items, self._size, self._drop, self._wake = items, size, drop, wake
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="ov2vss-reader", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        items = iter(self._items)
        try:
            for item in items:
                with self._changed:
                    if self._drop:
                        item = self._make_room(item)
                    else:
                        self._changed.wait_for(lambda: len(self._waiting) < self._size or self._stopped)
                    if self._stopped:
                        break
                    self._waiting.append(item)
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            if hasattr(items, "close"):
                items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _make_room(self, item: T) -> T:
        """Throw the oldest away; the next one, perhaps the one that comes, inherits what it said of a gap."""
        gap = False
        while len(self._waiting) >= self._size:
            gap = bool(getattr(self._waiting.popleft(), "gap", False)) or gap
            self.dropped += 1
        if gap and self._waiting:
            self._waiting[0] = replace(self._waiting[0], gap=True)  # type: ignore[type-var]
        elif gap:
            item = replace(item, gap=True)  # type: ignore[type-var]
        return item

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                # A time-out lets Ctrl-C through on every system.
                while not self._changed.wait_for(lambda: self._waiting or self._ended, timeout=0.5):
                    pass
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._wake is not None:
            self._wake()
        # A driver that blocks for longer is left behind: its thread ends when it answers.
        self._thread.join(timeout=PATIENCE)


class Background:
    """Runs calls one after the other in a thread of its own; use it in a ``with`` block.

    The error of a call is raised by the next :meth:`put`, or at the end of the block. What was put before an error
    of the block itself, Ctrl-C included, is still done.

    Args:
        size: calls that may wait; a further :meth:`put` blocks.
    """

    def __init__(self, size: int = AHEAD) -> None:
        self._size = size
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._changed = threading.Condition()
        self._busy = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="ov2vss-writer", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                call, args = self._waiting.popleft()
                self._changed.notify_all()
            if self._error is not None:
                continue
            try:
                call(*args)
            except BaseException as error:
                self._error = error

    def put(self, call: Callable[..., None], *args: Any) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: len(self._waiting) < self._size, timeout=0.5):
                pass
            if self._error is not None:
                raise self._error
            self._waiting.append((call, args))
            self._changed.notify_all()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error


def limited(items: Iterable[T], limit: int | None) -> Iterator[T]:
    """The first ``limit`` items; closed with the iterator that it takes them from, which ``islice`` is not."""
    iterator = iter(items)
    try:
        yield from islice(iterator, limit)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def paced(frames: Iterable[VideoFrame], stopped: threading.Event | None = None) -> Iterator[VideoFrame]:
    """Frames of a file when they are due by the clock, as a camera would give them; an event ends the waiting."""
    began: float | None = None
    stopped = stopped or threading.Event()
    for frame in frames:
        now = time.monotonic()
        if began is None:
            began = now - frame.time
        if (wait := began + frame.time - now) > 0 and stopped.wait(wait):
            return
        yield frame
