"""What becomes of results: overlaid video, masks, JSON Lines, arrays; any number of them at once.

To add a format: a class with :meth:`write` that is a context manager, and a field in :class:`Targets`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.coco import CocoFile
from ov2vss_runtime.outputs.cvat import CvatFolder
from ov2vss_runtime.outputs.frame_files import EarlierFiles, frame_name, make_folder
from ov2vss_runtime.outputs.masks import MaskFormat, MaskWriter
from ov2vss_runtime.outputs.overlay import Overlay, OverlayStyle
from ov2vss_runtime.outputs.places import held
from ov2vss_runtime.stream.stream import Result
from ov2vss_runtime.timing import Stopwatch
from ov2vss_runtime.video.source import Source
from ov2vss_runtime.video.writer import VideoWriter


class Output(Protocol):
    """Takes the results of one stream in order."""

    def write(self, result: Result) -> None: ...


@dataclass(frozen=True)
class Targets:
    """Where results of one source go; None for not.

    Attributes:
        video: overlaid mp4.
        masks: folder of ``<frame>.png``.
        mask_format: ``palette`` or ``gray``.
        jsonl: file of one JSON object a frame.
        npz: folder of ``<frame>.npz``.
        npz_top: classes kept in each position of the arrays; 0 for all logits.
        coco: file of COCO annotations.
        cvat: folder in CVAT's "Segmentation mask" layout.
        style: of the overlay.
    """

    video: Path | None = None
    masks: Path | None = None
    jsonl: Path | None = None
    npz: Path | None = None
    npz_top: int = 0
    coco: Path | None = None
    cvat: Path | None = None
    style: OverlayStyle = field(default_factory=OverlayStyle)
    mask_format: MaskFormat = "palette"

    def files(self) -> list[Path]:
        """The files among them."""
        return [p for p in (self.video, self.jsonl, self.coco) if p is not None]

    def folders(self) -> list[Path]:
        """The folders among them; each kind of file within has its own suffix, but for masks and CVAT's."""
        return list(dict.fromkeys(p for p in (self.masks, self.npz, self.cvat) if p is not None))

    def paths(self) -> list[str]:
        """All of them."""
        return [str(p) for p in (self.video, self.masks, self.jsonl, self.npz, self.coco, self.cvat) if p is not None]


def _hold(stack: ExitStack, targets: Targets) -> None:
    """Keep every place for this run until it is finished. A link stays one: what it points to is written."""
    for file in targets.files():
        make_folder(file.parent)
        part = f"{file.stem}.part{file.suffix}" if file == targets.video else f"{file.name}.part"
        stack.enter_context(held(file.with_name(part), file))
    for folder in targets.folders():
        make_folder(folder)
        stack.enter_context(held(folder, folder))


@contextmanager
def open_outputs(
    targets: Targets, source: Source, names: list[str], stages: Stopwatch
) -> Iterator[tuple[list[Output], list[str]]]:
    """The outputs of a source, and notices about them. They are finished at the end of the block; an error in it
    leaves what is unfinished under its ``.part`` name."""
    outputs: list[Output] = []
    notices: list[str] = []
    with ExitStack() as stack:
        _hold(stack, targets)
        if targets.video is not None:
            overlay = OverlayVideo(targets.video, source, names, targets.style, stages)
            outputs.append(stack.enter_context(overlay))
            notices += overlay.writer.notices
        if targets.masks is not None:
            outputs.append(stack.enter_context(Masks(targets.masks, len(names), stages, targets.mask_format)))
        if targets.jsonl is not None:
            outputs.append(stack.enter_context(JsonLines(targets.jsonl)))
        if targets.npz is not None:
            outputs.append(stack.enter_context(Arrays(targets.npz, targets.npz_top)))
        if targets.coco is not None:
            outputs.append(stack.enter_context(CocoFile(targets.coco, names, source.name)))
        if targets.cvat is not None:
            outputs.append(stack.enter_context(CvatFolder(targets.cvat, names)))
        yield outputs, notices


class OverlayVideo:
    """The frames with coloured labels as H.264 (see :class:`VideoWriter`)."""

    def __init__(self, path: Path, source: Source, names: list[str], style: OverlayStyle, stages: Stopwatch) -> None:
        make_folder(path.parent)
        self._overlay, self._stages = Overlay(names, (source.height, source.width), style), stages
        self.writer = VideoWriter(path, source, size=self._overlay.out_size)

    def write(self, result: Result) -> None:
        with self._stages("overlay"):
            picture = self._overlay.draw(result.frame, result.labels)
        with self._stages("encode"):
            self.writer.write(picture, result.pts or 0)

    def __enter__(self) -> OverlayVideo:
        self.writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.writer.__exit__(*error)


class Masks:
    """Indexed PNGs, named like the frames: the layout in which VSPW takes submissions."""

    def __init__(self, folder: Path, classes: int, stages: Stopwatch, form: MaskFormat = "palette") -> None:
        self._writer, self._stages = MaskWriter(folder, classes, form), stages
        self._earlier = EarlierFiles(folder, ".png")

    def write(self, result: Result) -> None:
        with self._stages("masks"):
            self._earlier.written(self._writer.write(frame_name(result), result.labels))

    def __enter__(self) -> Masks:
        return self

    def __exit__(self, *error: Any) -> None:
        self._earlier.__exit__(*error)


class JsonLines:
    """One object a frame: ``frame``, ``time``, and by class ``area`` (share of the pixels) and, where it was asked for,
    the mean ``confidence``; classes that are not there are left out.

    Every line is in the file (``<name>.part`` until the end) as soon as the frame is done.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, path.with_name(path.name + ".part")
        if path.is_dir():
            raise VideoError(f"{path} is a folder", "name a file for --jsonl")
        make_folder(path.parent)
        try:
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise VideoError(f"{path} cannot be written ({error.strerror})", "choose another --jsonl") from None

    def write(self, result: Result) -> None:
        try:
            self._file.write(json.dumps(record(result), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise VideoError(
                f"{self._part} cannot be written ({error.strerror})", "free some space or choose another --jsonl"
            ) from None

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None:
            self._part.replace(self.path)
        elif self._part.stat().st_size == 0:
            self._part.unlink()


def record(result: Result) -> dict[str, Any]:
    """What :class:`JsonLines` writes about a frame."""
    flat, slots = result.labels.ravel(), result.unknown + 1
    counts = np.bincount(flat, minlength=slots)
    sums = None if result.confidence is None else np.bincount(flat, result.confidence.ravel(), slots)
    classes: dict[str, dict[str, float]] = {}
    for index in np.flatnonzero(counts[: len(result.names)]):
        entry = {"area": round(float(counts[index]) / flat.size, 6)}
        if sums is not None:
            entry["confidence"] = round(float(sums[index]) / float(counts[index]), 4)
        classes[result.names[index]] = entry
    line: dict[str, Any] = {"frame": result.index, "time": result.time, "classes": classes}
    if result.name is not None:
        line["name"] = result.name
    if counts[result.unknown]:
        line["unknown"] = round(float(counts[result.unknown]) / flat.size, 6)
    if result.age:
        line["age"] = result.age
    return line | {key: True for key in ("held", "propagated", "cut") if getattr(result, key)}


class Arrays:
    """``<frame>.npz`` at the model's own resolution (an eighth of its frame size).

    With ``top = 0``: ``logits`` float16 ``[K, H/8, W/8]`` and ``classes`` [K], the indices of its rows. Else:
    ``classes`` uint16 and ``probabilities`` float16, both ``[top, H/8, W/8]``, the best first. ``names`` holds the
    words.
    """

    def __init__(self, folder: Path, top: int) -> None:
        self.folder, self.top = folder, top
        make_folder(folder)
        self._earlier = EarlierFiles(folder, ".npz")

    def write(self, result: Result) -> None:
        logits, classes = result.logits, result.classes
        if logits is None or classes is None:  # a live stream whose network has found nothing yet
            return
        arrays: dict[str, Any] = {"names": np.asarray(result.names)}
        if self.top == 0:
            arrays |= {"logits": logits.astype(np.float16), "classes": classes.astype(np.uint16)}
        else:
            order = np.argsort(-logits, axis=0, kind="stable")[: self.top]
            shares = np.exp(logits - logits.max(0))
            shares /= shares.sum(0)
            arrays["classes"] = classes.astype(np.uint16)[order]
            arrays["probabilities"] = np.take_along_axis(shares, order, 0).astype(np.float16)
        path = self.folder / f"{frame_name(result)}.npz"
        part = path.with_suffix(".part")
        self._earlier.written(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # names of frames may have folders
            with part.open("wb") as stream:
                np.savez_compressed(stream, **arrays)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise VideoError(
                f"{path} cannot be written ({error.strerror})", "free some space or choose another folder"
            ) from None

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *error: Any) -> None:
        self._earlier.__exit__(*error)
