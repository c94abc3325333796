"""Windows: a frame is looked at in overlapping pieces of the bundle's size, and their logits are averaged.

It is how the published figures of training-free methods were made: the frame at a short side of 336 pixels with its
own aspect, windows of 224, a stride of 112. Each window's logits are interpolated to its pixels, and the mean of all
windows over a pixel counts. More detail for as many times the work as there are windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import Arrays, FrameFeatures
from ov2vss_runtime.engines.engine import Engine as AnyEngine
from ov2vss_runtime.errors import OV2VSSError


@dataclass(frozen=True)
class Tiles:
    """Which windows.

    Attributes:
        short: pixels of the frame's shorter side.
        stride: pixels from one window to the next; 0 for half of a window's shorter side.
    """

    short: int
    stride: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.short <= 8192 or not 0 <= self.stride <= 8192:
            raise OV2VSSError(
                f"tiles of {self.short}:{self.stride}", "give SHORT or SHORT:STRIDE in pixels, like 336:112"
            )


def parse_tiles(text: str) -> Tiles:
    """``"336:112"`` or ``"336"``."""
    short, colon, stride = text.partition(":")
    if not short.isdigit() or (colon and not stride.isdigit()) or (colon and int(stride) == 0):
        raise OV2VSSError(f"tiles {text!r}", "write SHORT or SHORT:STRIDE in pixels, like 336:112", usage=True)
    return Tiles(int(short), int(stride or 0))


def starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis; the last one ends where the axis ends.

    >>> starts(336, 224, 112), starts(500, 224, 112)
    ([0, 112], [0, 112, 224, 276])
    """
    return [min(i * stride, length - window) for i in range(max(length - window + stride - 1, 0) // stride + 1)]


@lru_cache(maxsize=64)
def spread(length: int, window: int, stride: int, cells: int) -> npt.NDArray[np.float32]:
    """The matrix ``[length, windows * cells]`` that interpolates the cells of all windows of an axis to its pixels
    (bilinear, half-pixel centres, each window by itself) and averages where windows overlap."""
    at = starts(length, window, stride)
    place = np.clip((np.arange(window) + 0.5) * cells / window - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    one = np.zeros((window, cells))
    one[np.arange(window), low] = 1 - (place - low)
    if cells > 1:
        one[np.arange(window), low + 1] = place - low
    whole = np.zeros((length, len(at) * cells))
    for number, start in enumerate(at):
        whole[start : start + window, number * cells : (number + 1) * cells] = one
    return (whole / whole.sum(1, keepdims=True)).astype(np.float32)


class TiledEngine:
    """An engine for frames of another size than its own, in windows; it belongs to one stream.

    Its members are those of :class:`ov2vss_runtime.engines.engine.Engine`; ``size`` is that of the last picture.

    Args:
        engine: looks at the windows. Its model has no state, and looks at every frame alone.
        tiles: which windows.

    Raises:
        OV2VSSError: the model carries a state or looks at a distant frame, or a window is larger than the picture.
    """

    def __init__(self, engine: AnyEngine, tiles: Tiles) -> None:
        self.engine, self.tiles = engine, tiles
        self.window = engine.size
        if engine.can.distant or engine.can.warmup or engine.initial_state():
            raise OV2VSSError(
                "this bundle carries a memory of whole frames, which windows would cut",
                "tiles are for training-free bundles (clip:MODEL/TAG) without --temporal",
                usage=True,
            )
        if max(self.window) > tiles.short:
            raise OV2VSSError(
                f"windows of {self.window[0]}x{self.window[1]} do not fit into a short side of {tiles.short}",
                f"give at least {max(self.window)}, or take a bundle of smaller frames (clip:MODEL/TAG@224x224)",
                usage=True,
            )
        self.stride = tiles.stride or min(self.window) // 2
        if self.stride > min(self.window):
            raise OV2VSSError(
                f"a stride of {self.stride} leaves gaps between windows of {self.window[0]}x{self.window[1]}",
                f"give at most {min(self.window)}",
                usage=True,
            )
        self.size: tuple[int, int] = (tiles.short, tiles.short)
        self.can = replace(
            engine.can,
            device_labels=False,
            identity=engine.can.identity and f"{engine.can.identity} tiles {tiles.short}:{self.stride}",
        )

    def fit(self, frame: tuple[int, int]) -> bool:
        """Take frames of (h, w) from now on; whether that is another size of picture than before."""
        scale = self.tiles.short / min(frame)
        size = (max(round(frame[0] * scale), self.tiles.short), max(round(frame[1] * scale), self.tiles.short))
        changed, self.size = size != self.size, size
        return changed

    @property
    def grid(self) -> tuple[list[int], list[int]]:
        """First rows and first columns of the windows."""
        (height, width), (h, w) = self.size, self.window
        return starts(height, h, self.stride), starts(width, w, self.stride)

    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        rows, columns = self.grid
        h, w = self.window
        found: list[Arrays] = []
        for y in rows:
            for x in columns:
                features = self.engine.backbone(np.ascontiguousarray(frame[y : y + h, x : x + w]))
                guidance, _ = self.engine.step(features, {}, {})
                # Kept as copies: the engine may use its memory for the next window.
                found.append(self.engine.to_host(features.payload | guidance))
        return FrameFeatures({}, found)

    def initial_state(self) -> Any:
        return {}

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Any, Any]:
        return features.payload, {}

    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Logits ``[N, H, W]`` at the picture's size."""
        rows, columns = self.grid
        windows = []
        for arrays in guidance:
            payload = self.engine.from_host(arrays)
            windows.append(np.array(self.engine.decode(FrameFeatures({}, payload), {}, embeddings)))
        count, h, w = windows[0].shape
        tiled = np.stack(windows).reshape(len(rows), len(columns), count, h, w)
        tiled = np.ascontiguousarray(tiled.transpose(2, 0, 3, 1, 4)).reshape(count, len(rows) * h, len(columns) * w)
        down = spread(self.size[0], self.window[0], self.stride, h)
        across = spread(self.size[1], self.window[1], self.stride, w)
        logits: npt.NDArray[np.float32] = np.matmul(down, np.matmul(tiled, across.T))
        return logits

    def labels(self, *_: Any) -> npt.NDArray[np.uint8]:
        raise NotImplementedError("label maps of windows are made on the processor")

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        """Places of all windows one after the other, along the axis of places (tokens) or the last one (maps)."""
        axis = 1 if self.can.cut is not None and name == self.can.cut.name else -1
        joined: npt.NDArray[np.float32] = np.concatenate([arrays[name] for arrays in features.payload], axis)
        return joined

    def blame(self, features: FrameFeatures, guidance: Any) -> str:
        found = (np.isfinite(array).all() for arrays in guidance for array in arrays.values())
        return "decoder" if all(found) else "backbone"

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return self.engine.encode_text(texts)

    def to_host(self, value: Any) -> Arrays:
        return dict(value)

    def from_host(self, arrays: Arrays) -> Any:
        return dict(arrays)
