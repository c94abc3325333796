"""Finished chunks joined into what ``ov2vss-run`` writes for their source.

JSON Lines are put one after the other; files of frames keep their names and bytes; the overlaid video is drawn from the
source's frames and the masks, and encoded in one piece: an encoder's bytes depend on all frames before. Everything is
made beside its place and takes its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from ov2vss_runtime.batch.folder import BatchFolder, sync, sync_tree
from ov2vss_runtime.batch.records import Job
from ov2vss_runtime.batch.sources import bring, identity, is_stored
from ov2vss_runtime.batch.work import ARRAYS, COCO, CVAT, LINES, MASKS, VIDEO
from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.frame_files import frame_name, make_folder
from ov2vss_runtime.outputs.targets import OverlayVideo
from ov2vss_runtime.stream.label_map import Labels, label_type
from ov2vss_runtime.stream.pipeline import Background, Prefetch, limited
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.timing import Stopwatch
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.source import Source, VideoFrame


class NotFinished(Exception):
    """Jobs of a source are missing."""


def places(job: Job, out: Path) -> dict[str, Path]:
    """Where the outputs of a source go, by their names in a part."""
    name, wanted = job.source.name, job.outputs
    all_of_them = {
        VIDEO: (wanted.video, out / f"{name}.ov2vss.mp4"),
        MASKS: (wanted.masks, out / "masks" / name),
        LINES: (wanted.jsonl, out / f"{name}.jsonl"),
        ARRAYS: (wanted.npz, out / "npz" / name),
        COCO: (wanted.coco, out / f"{name}.coco.json"),
        CVAT: (wanted.cvat, out / "cvat" / name),
    }
    return {part: place for part, (there, place) in all_of_them.items() if there}


def merge_source(folder: BatchFolder, jobs: list[Job]) -> dict[str, Path]:
    """Join the parts of one source.

    Args:
        folder: of the batch.
        jobs: of this source, in order.

    Returns:
        Its outputs by their names in a part.

    Raises:
        NotFinished: a job is missing.
        VideoError: an output cannot be written, or the source has changed.
    """
    outputs = places(jobs[0], folder.out)
    if is_merged(folder, jobs[0]):
        _forget_parts(folder, jobs)
        return outputs
    folder.unmark_merged(jobs[0].source.name)
    planned, parts = jobs, [folder.done(job.id) for job in jobs]
    if any(part is not None and part.untrusted for part in parts):
        jobs = [jobs[0].whole]
        parts = [folder.done(jobs[0].id)]
    if missing := [job.id for job, part in zip(jobs, parts, strict=True) if part is None]:
        raise NotFinished(f"{len(missing)} of {len(jobs)} jobs are missing")
    pieces = [folder.part(job.id) for job in jobs]
    with tempfile.TemporaryDirectory(prefix="merging.", suffix=".part", dir=folder.home) as name:
        beside = Path(name)
        for part, place in outputs.items():
            made = beside / part
            if len(pieces) == 1 and (pieces[0] / part).exists():
                _link(pieces[0] / part, made)
            elif part == LINES:
                _join(made, [piece / LINES for piece in pieces])
            elif part == VIDEO:
                _draw(made, jobs, pieces)
            else:
                for piece in pieces:
                    _link(piece / part, made)
            sync_tree(made) if made.is_dir() else sync(made)
            _put(made, place)
    finished = [part for part in parts if part is not None]
    facts = {"frames": sum(p.frames for p in finished), "seconds": sum(p.seconds for p in finished)}
    folder.mark_merged(jobs[0].source.name, {"source": jobs[0].source.location, "jobs": len(jobs)} | facts)
    _forget_parts(folder, planned)
    return outputs


def is_merged(folder: BatchFolder, job: Job) -> bool:
    """Whether the outputs of a job's source are all in their places."""
    there = all(place.exists() for place in places(job, folder.out).values())
    return there and folder.merged(job.source.name) is not None


def _forget_parts(folder: BatchFolder, jobs: list[Job]) -> None:
    for job in [*jobs, jobs[0].whole]:
        folder.remove(job.id)


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name, a folder's files among those that are there; copied where links are not."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            _link(entry, target / entry.name)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _join(target: Path, pieces: list[Path]) -> None:
    with target.open("wb") as joined:
        for piece in pieces:
            with piece.open("rb") as lines:
                shutil.copyfileobj(lines, joined)
        joined.flush()
        os.fsync(joined.fileno())


def _put(made: Path, place: Path) -> None:
    """Give a complete output its place; what was there before goes."""
    make_folder(place.parent)
    try:
        if made.is_dir() and place.exists():
            earlier = made.with_name(f"{made.name}.earlier")
            place.rename(earlier)
        made.rename(place)
    except OSError as error:
        raise VideoError(f"{place} cannot be written ({error.strerror})", "free the place and merge again") from None
    sync(place.parent)


def _draw(target: Path, jobs: list[Job], pieces: list[Path]) -> None:
    """The overlaid video, from the source's frames and the masks of its chunks."""
    job = jobs[0]
    if job.source.identity is not None and identity(job.source.location) != job.source.identity:
        raise VideoError(f"{job.source.location} has changed since it was planned", "plan again in another folder")
    with tempfile.TemporaryDirectory(prefix="ov2vss-") as name:
        path = Path(job.source.location)
        if is_stored(job.source.location):
            path = bring(job.source.location, Path(name))
        reader = VideoReader(path, job.source.packets.survey if job.source.packets is not None else None)
        names = job.model.vocabulary.names
        masks = {file.stem: file for piece in pieces for file in (piece / MASKS).iterdir()}
        stages, count = Stopwatch(), 0
        overlay = OverlayVideo(target, cast(Source, reader), names, job.outputs.style, stages)
        with overlay, Prefetch(limited(reader, job.labelling.frames)) as frames, Background() as writer:
            for frame in frames:
                result = _result(frame, count, names, masks)
                writer.put(overlay.write, result)
                count += 1
            if count != len(masks):
                raise VideoError(f"{path} has {count} frames, and {len(masks)} were labelled", "plan it again")


def _result(frame: VideoFrame, index: int, names: list[str], masks: dict[str, Path]) -> Result:
    nothing: Labels = np.zeros((0, 0), np.uint8)
    result = Result(index, frame.time, frame.rgb, nothing, names, None, pts=frame.pts, name=frame.name)
    mask = masks.get(frame_name(result))
    if mask is None:
        raise VideoError(f"frame {index} was not labelled", "plan the source again")
    return Result(index, frame.time, frame.rgb, read_labels(mask, len(names)), names, None, pts=frame.pts)


def read_labels(mask: Path, classes: int) -> Labels:
    """Inverse of :func:`ov2vss_runtime.outputs.masks.mask_ids`: unknown is the largest value of the type."""
    kind = label_type(classes)
    with Image.open(mask) as image:
        return np.asarray(image).astype(kind) - kind(1)  # type: ignore[no-any-return,operator]
