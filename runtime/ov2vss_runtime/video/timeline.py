"""Timestamps as they are in a source -> timestamps that begin at 0 and rise."""

from __future__ import annotations

from fractions import Fraction

GLITCH = 8
"""Frames by which a timestamp may fall behind without being taken for a clock that starts again, at least:"""
MOMENT = Fraction(3, 10)
"""Seconds by which it may."""
LONGEST_PAUSE = 10.0
"""Seconds by which the clock of a format that may jump goes forward in one step; FFmpeg's own bound."""


class Timeline:
    """Places one video's timestamps on a line that begins at 0 and rises.

    A clock that jumps back (recordings that were joined, a sender that was restarted) goes on by the last frame's
    duration: at once where it jumps far, with the second frame that lies behind where it does not. A timestamp alone
    that does not rise is put one tick after the one before; a missing one follows by the last frame's duration.

    Args:
        time_base: seconds per tick.
        step: nominal duration of a frame in ticks.
        origin: timestamp that becomes 0; None for the first one that comes.
        jumps_forward: whether a step of more than :data:`LONGEST_PAUSE` is a jump too (formats with a free clock).

    Attributes:
        shifts: what was added to timestamps, in ticks: first of all, then after each jump.
    """

    def __init__(self, time_base: Fraction, step: int, origin: int | None = None, jumps_forward: bool = False) -> None:
        self.time_base, self.step = time_base, max(1, step)
        self.tolerance = max(GLITCH * self.step, round(MOMENT / time_base))
        self._farthest = round(LONGEST_PAUSE / time_base) if jumps_forward else None
        self.shifts: list[int] = [] if origin is None else [-origin]
        self._last: int | None = None
        self._duration = self.step
        self._highest, self._behind = 0, 0

    @property
    def jumps(self) -> int:
        """How often the clock has jumped."""
        return max(0, len(self.shifts) - 1)

    @property
    def end(self) -> int:
        """Where the frame after the last one would be, in ticks."""
        return 0 if self._last is None else self._last + self._duration

    def place(self, stamp: int | None, duration: int | None = None) -> int:
        """Where a frame belongs, in ticks from the beginning.

        Args:
            stamp: its timestamp in the source, or None.
            duration: how long it is shown, in ticks; None or 0 for :attr:`step`.
        """
        if stamp is None:
            placed = self.end
        else:
            if not self.shifts:
                self.shifts.append(self.end - stamp)
            placed = stamp + self.shifts[-1]
            if self._last is not None:
                if self._jumped(placed, self._last):
                    self.shifts.append(self.end - stamp)
                placed = max(stamp + self.shifts[-1], self._last + 1)
            self._highest = max(self._highest, stamp + self.shifts[-1])
        self._last, self._duration = placed, duration or self.step
        return placed

    def _jumped(self, placed: int, last: int) -> bool:
        self._behind = self._behind + 1 if placed < self._highest else 0
        back = placed <= last - self.tolerance or self._behind > 1
        jumped = back or (self._farthest is not None and placed > last + self._farthest)
        if jumped:
            self._highest, self._behind = self.end, 0
        return jumped

    def seconds(self, ticks: int) -> float:
        """Ticks in seconds."""
        return float(ticks * self.time_base)


class FollowedClock:
    """Another stream's timestamps (audio) on the line of a video: its jumps are moved by what the video's were moved.

    Args:
        video: whose line it is; it may still grow while this one reads.
        time_base: seconds per tick of the other stream.
    """

    def __init__(self, video: Timeline, time_base: Fraction) -> None:
        self._video, self._ratio, self.time_base = video, video.time_base / time_base, time_base
        self._shift = self._shifts()[0]
        self._end: int | None = None
        self._tolerance = round(Fraction(1, 2) / time_base)
        self._used = 0

    def _shifts(self) -> list[int]:
        return [round(shift * self._ratio) for shift in self._video.shifts] or [0]

    def place(self, stamp: int, final: bool = False) -> int | None:
        """Where a packet belongs, in its own ticks; None if that depends on video that has not been read yet.

        Args:
            stamp: of the packet.
            final: no more video will come.
        """
        if self._end is not None and abs(stamp + self._shift - self._end) > self._tolerance:
            # A jump. It belongs to the jump of the video that brings this stream nearest to where it ended.
            later = self._shifts()[self._used + 1 :]
            gaps = [abs(stamp + shift - self._end) for shift in later]
            if gaps and min(gaps) < abs(stamp + self._shift - self._end):
                index = gaps.index(min(gaps))
                self._shift, self._used = later[index], self._used + 1 + index
            elif stamp + self._shift < self._end:
                if not final:
                    return None
                self._shift = self._end - stamp
        return stamp + self._shift

    def accept(self, placed: int, duration: int) -> None:
        """A packet that was placed was taken; the next one follows it."""
        self._end = placed + duration
