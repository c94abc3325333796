"""A live picture without lag: the network looks at the newest frame in a thread of its own, and every frame is shown at
once, with the last finished logits moved to it along the flow.

Between two looks at a frame only its motion is found and its label map made. One frame is with the network at a time;
what is kept is that frame, one frame's logits and two motions, however long the video.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.stream.flow import Motion, MotionEstimator, still
from ov2vss_runtime.stream.propagation import Logits, Smoothing, propagate


@dataclass(frozen=True)
class Finding:
    """What the network found in one frame.

    Attributes:
        logits: ``[N, h, w]``.
        classes: indices into the words of the rows of ``logits``.
        cut: the frame began a new shot.
    """

    logits: Logits
    classes: npt.NDArray[np.intp]
    cut: bool = False


@dataclass
class Look:
    """A frame at which the network looks, or has looked.

    Attributes:
        index: of the frame.
        wording: which words it was asked about.
        motion: from the frame shown last to this one; None before the size of logits is known.
        before: the last finished look when this one began, and the motion from this frame to that one.
        lost: between this frame and the one shown last there are frames whose motion was not found. Its labels are
            shown until there are newer ones, but nothing is blended with them.
    """

    index: int
    wording: int
    motion: Motion | None
    before: tuple[Look, Motion] | None = None
    finding: Finding | None = None
    lost: bool = False
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class NewestFrame:
    """Shows every frame with the newest labels there are; use it in a ``with`` block.

    Args:
        network: ``(frame as the network sees it, its index, its time)`` to what it finds; called in a thread of its
            own, never twice at a time.
        smoothing: constants of the blend of a finished frame with the one before it; None for no blend.
    """

    def __init__(self, network: Callable[[npt.NDArray[np.uint8], int, Any], Finding], smoothing: Smoothing | None):
        self._network, self._smoothing = network, smoothing
        self._estimate = MotionEstimator((smoothing or Smoothing()).gates)
        self._shown: Look | None = None
        self._busy: Look | None = None
        self._task: tuple[Look, npt.NDArray[np.uint8], Any] | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="ov2vss-network", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._task is not None or self._stopped)
                if self._task is None:
                    return
                (look, frame, time), self._task = self._task, None
            try:
                look.finding = self._network(frame, look.index, time)
            except BaseException as error:
                look.error = error
            look.done.set()

    def wait(self) -> None:
        """Until the network is idle: what it works with may then be changed. What it was at is thrown away."""
        if self._busy is not None:
            self._finish(self._busy)
            self._busy = None

    def forget(self) -> None:
        """Frames are missing before the next one: nothing is taken from the past."""
        self.wait()
        self._shown = None
        self._estimate.forget()

    def show(
        self,
        frame: npt.NDArray[np.uint8],
        index: int,
        time: float | None,
        wording: int,
        size: tuple[int, int],
        threads: int,
        confidence: npt.NDArray[np.float32] | None = None,
    ) -> tuple[Finding, npt.NDArray[Any], int] | None:
        """Logits moved to this frame, its labels as indices into their rows, and the index of the frame that the
        network found them in; None before it has found anything. Never waits for the network.

        Args:
            frame: RGB ``[H, W, 3]`` uint8, as the network sees it.
            index, time: of the frame.
            wording: another number means other words, and that nothing is known yet.
            size: (H, W) of the labels.
            threads: of the kernel.
            confidence: float32 ``size``, gets the label's share of the softmax.
        """
        self._follow(frame)
        if self._shown is not None and self._shown.wording != wording:
            self._shown = None
        if self._busy is not None and self._busy.done.is_set():
            self._take(wording)
        if self._busy is None:
            self._begin(frame, index, time, wording)
        shown = self._shown
        if shown is None:
            return None
        assert shown.finding is not None
        assert shown.motion is not None
        logits, labels = propagate(
            shown.finding.logits, shown.motion.flow, size, threads=threads, confidence=confidence
        )
        return replace(shown.finding, logits=logits), labels, shown.index

    def _follow(self, frame: npt.NDArray[np.uint8]) -> None:
        """Lead the motions on to the next frame."""
        known = self._shown.finding if self._shown is not None else None
        cells = None if known is None else known.logits.shape[1:]
        step = self._estimate(frame, cells)
        for look in (self._shown, self._busy):
            if look is None:
                continue
            if cells is None or step is None or step.lost or look.motion is None:
                look.lost = True
                look.motion = None if cells is None else still(cells)
            else:
                look.motion = step.after(look.motion)

    def _begin(self, frame: npt.NDArray[np.uint8], index: int, time: float | None, wording: int) -> None:
        """Give this frame to the network."""
        before, motion, shown = None, None, self._shown
        if shown is not None and shown.finding is not None:
            motion = still(shown.finding.logits.shape[1:])
        if shown is not None and shown.motion is not None and not shown.lost:
            before = (replace(shown, before=None), shown.motion)
        self._busy = Look(index, wording, motion, before)
        with self._changed:
            self._task = (self._busy, frame, time)
            self._changed.notify_all()

    def _finish(self, look: Look) -> None:
        # A time-out lets Ctrl-C through on every system.
        while not look.done.wait(0.5):
            pass
        if look.error is not None:
            raise look.error

    def _take(self, wording: int) -> None:
        """Let what the network has found be shown from now on, unless it belongs to other words."""
        look, self._busy = self._busy, None
        assert look is not None
        self._finish(look)
        finding = look.finding
        assert finding is not None
        if look.wording != wording:
            return
        if look.motion is None:
            look.motion = still(finding.logits.shape[1:])
        before, look.before = look.before, None
        if self._smoothing is not None and before is not None and not finding.cut:
            past, motion = before
            assert past.finding is not None
            if past.wording == wording and np.array_equal(past.finding.classes, finding.classes):
                cells = finding.logits.shape[1:]
                blended, _ = propagate(
                    past.finding.logits, motion.flow, cells, finding.logits, motion.trust, self._smoothing
                )
                look.finding = replace(finding, logits=blended)
        self._shown = look

    def __enter__(self) -> NewestFrame:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped, self._task = True, None
            self._changed.notify_all()
        self._thread.join(timeout=10)
