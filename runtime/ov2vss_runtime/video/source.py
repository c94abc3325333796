"""What a source of frames is: its frames, its members, its options, and the defaults of sources without a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from av.container import InputContainer


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame.

    Attributes:
        rgb: ``[h, w, 3]`` uint8.
        pts: timestamp in units of the source's time base.
        time: the same in seconds.
        name: of the frame, where frames have names (image files).
        gap: frames before it are missing (a lost connection): the past does not belong to it.
    """

    rgb: npt.NDArray[np.uint8]
    pts: int
    time: float
    name: str | None = None
    gap: bool = False


class Source(Protocol):
    """Frames in order, and what an output needs to know of them.

    Attributes:
        path: a file or folder, or None.
        name: for the names of outputs.
        height, width: of the frames, in pixels.
        time_base: seconds per unit of ``pts``.
        rate: frames a second, nominal.
        pixel_aspect: width of a pixel over its height.
        bt709: colour matrix that an output should use (else BT.601).
        frames: how many there are, or None.
        live: frames come by the clock, whether somebody takes them or not.
    """

    path: Path | None
    name: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction
    bt709: bool
    frames: int | None
    live: bool

    def __iter__(self) -> Iterator[VideoFrame]: ...

    def audio(self) -> InputContainer | None:
        """A container to copy audio from, or None."""
        ...


@dataclass(frozen=True)
class SourceOptions:
    """How sources are opened, as far as they do not say it themselves.

    Attributes:
        rate: frames a second of images and raw frames, or asked of a camera.
        raw: (height, width) of raw frames on standard input.
        raw_format: their pixel format.
        reconnect: seconds to try to get a lost network stream back.
    """

    rate: Fraction = Fraction(25)
    raw: tuple[int, int] | None = None
    raw_format: str = "rgb24"
    reconnect: float = 10.0


class FrameSource:
    """Defaults of sources without a container."""

    path: Path | None = None
    pixel_aspect = Fraction(1)
    bt709 = False
    frames: int | None = None
    live = False

    def audio(self) -> None:
        return None

    def close(self) -> None:
        """End a read that waits, from any thread, and release what is open. Nothing can be read afterwards."""


def close_source(source: Source) -> None:
    """Close a source that can be closed."""
    close = getattr(source, "close", None)
    if close is not None:
        close()
