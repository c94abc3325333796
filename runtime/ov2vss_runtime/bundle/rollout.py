"""Roll-outs: frames in order through a stream, with a distant frame that changes and a past that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import Manifest
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.progress import Progress
from ov2vss_runtime.stream.stream import Stream

ROLLOUT = 64
DISTANT_AT, RESET_AT = 22, 44
"""Frames of a roll-out at which the distant frame changes and the stream is reset."""
CELLS, EVERY = 128, 4
"""Positions of the logits, and frames, that are kept of a roll-out."""


def synthetic_frames(size: tuple[int, int], count: int = ROLLOUT) -> list[npt.NDArray[np.uint8]]:
    """RGB frames ``[H, W, 3]`` of blocks that drift over a gradient: integers only, the same on every machine."""
    height, width = size
    random = np.random.RandomState(0)
    blocks = random.randint(0, 256, (12, 12, 3))
    speed = random.randint(-3, 4, (12, 12, 2))
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    frames = []
    for t in range(count):
        frame = ground.copy()
        for row in range(12):
            for column in range(12):
                if (row + column) % 3 == 0:
                    top = (row * height // 12 + t * speed[row, column, 0]) % height
                    left = (column * width // 12 + t * speed[row, column, 1]) % width
                    frame[top : top + height // 9, left : left + width // 9] = blocks[row, column]
        frames.append(frame.astype(np.uint8))
    return frames


class Rolled(Protocol):
    """What a roll-out needs of a stream: :class:`ov2vss_runtime.stream.stream.Stream` has it."""

    def reset(self) -> None: ...

    def set_last(self, frame: npt.NDArray[np.uint8]) -> None: ...

    def advance(self, frame: npt.NDArray[np.uint8]) -> None: ...

    def logits(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


def rolled_logits(
    stream: Rolled, frames: Sequence[npt.NDArray[np.uint8]], what: str = "", progress: bool = True, every: int = 1
) -> Iterator[npt.NDArray[np.float32]]:
    """Logits ``[N, h, w]`` of every frame of a roll-out: the distant frame changes once, the past ends once.

    With ``every`` above one, only those of frames 0, every, 2 every, ...: the others are but the past of these.
    """
    with Progress(len(frames), f"verify {what}".strip(), "frame", show=progress) as bar:
        for index, frame in enumerate(frames):
            if index == RESET_AT:
                stream.reset()
            if index in (0, DISTANT_AT, RESET_AT):
                stream.set_last(frames[DISTANT_AT // 2] if index == DISTANT_AT else frames[-1])
            if index % every == 0:
                yield np.asarray(stream.logits(frame))
            else:
                stream.advance(frame)
            bar.update()


def sampled_rollout(
    make_stream: Callable[[], Rolled], frames: Sequence[npt.NDArray[np.uint8]], progress: bool = False
) -> npt.NDArray[np.float32]:
    """Logits ``[T, N, P]`` at :data:`CELLS` positions of every :data:`EVERY`-th frame."""
    kept = []
    for number, logits in enumerate(rolled_logits(make_stream(), frames, progress=progress, every=EVERY)):
        flat = logits.reshape(len(logits), -1)
        places = np.random.RandomState(EVERY * number)
        kept.append(flat[:, places.choice(flat.shape[1], min(CELLS, flat.shape[1]), False)])
    return np.stack(kept).astype(np.float32)


def stream_maker(engine: Any, manifest: Manifest, embeddings: npt.NDArray[np.float32]) -> Callable[[], Stream]:
    """Streams of an engine with given class embeddings."""
    words = Vocabulary(tuple((f"word {k}",) for k in range(len(embeddings))))
    templates = tuple(manifest.vocabulary.templates)
    return lambda: Stream(engine, words, templates, manifest.gap, "farthest", embeddings=embeddings)
