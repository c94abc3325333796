"""The measurements of temporal.py: one function a question, figures as plain dictionaries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from davis_words import words_for

from ov2vss.data import open_videos
from ov2vss.data.label_tables import VOID
from ov2vss.data.source import VideoSet
from ov2vss.evaluate.degrade import degrade
from ov2vss.evaluate.metrics import Confusion, video_consistency
from ov2vss.evaluate.temporal import TemporalTally
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.propagation import Propagator, Smoothing
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.video.source import FrameSource, VideoFrame

Frames = list[npt.NDArray[np.uint8]]
Maps = list[npt.NDArray[Any]]
CHOSEN = 50
"""Frames of CamVid val, from the first, on which the constants were chosen."""


def exact_logits(segmenter: Segmenter, frames: Frames, words: Any, gap: int | None = None) -> Maps:
    """Logits of every frame, without smoothing."""
    stream = segmenter.stream(None, words, gap, "farthest")
    stream.set_last(frames[-1], float(len(frames) - 1))
    return [stream.logits(frame, float(t)).copy() for t, frame in enumerate(frames)]


def smoothed(segmenter: Segmenter, frames: Frames, logits: Maps, size: tuple[int, int]) -> Maps:
    """Labels as a stream with smoothing makes them of these logits."""
    past, found = Propagator(Smoothing.from_manifest(segmenter.bundle.manifest.temporal)), []
    for frame, own in zip(frames, logits, strict=True):
        past.look(resize_frame(frame, segmenter.engine.size))
        found.append(past.blend(own.copy(), 0, size)[1])
    return found


def scored(truths: Maps, maps: Maps, names: list[str], frames: Frames | None = None, rate: float = 15) -> dict:
    """mIoU and VC8 in points, IoU per class; with ``frames`` agreement, flips a second and edges too."""
    confusion = Confusion(len(names), len(names))
    for truth, found in zip(truths, maps, strict=True):
        confusion.update(truth, found)
    scores = confusion.scores()
    consistency = video_consistency(np.stack(truths), np.stack(maps), 8)
    result: dict[str, Any] = {"miou": 100 * scores["miou"], "vc8": 100 * float(np.mean(consistency))}  # type: ignore[operator]
    result["per_class"] = dict(zip(names, scores["per_class"], strict=True))  # type: ignore[arg-type]
    if frames is not None:
        tally = TemporalTally(names, rate)
        for t in range(1, len(frames)):
            tally.pair((frames[t], frames[t - 1]), (maps[t], maps[t - 1]))
            tally.labelled(truths[max(0, t - 8) : t + 1], maps[max(0, t - 8) : t + 1])
        result |= {k: v for k, v in tally.scores().items() if k != "vc8_per_class"}
    return result


def truth_of(videos: VideoSet, count: int) -> Maps:
    table = np.full(256, VOID, np.uint8)
    table[1 : len(videos.classes) + 1] = np.arange(len(videos.classes))
    return [table[videos.mask(0, t)] for t in range(count)]


def camvid(segmenter: Segmenter, root: Path, split: str, gap: int | None, quality: int | None = None) -> dict[str, Any]:
    """One clip of CamVid as it is and smoothed; val in the part that chose the constants, the rest, and all."""
    videos = open_videos(str(root), split)
    clean = [videos.frame(0, t) for t in range(videos.length(0))]
    frames = clean if quality is None else [degrade(f, "jpeg", quality, ()) for f in clean]
    truths, names = truth_of(videos, len(frames)), videos.classes.names
    logits = exact_logits(segmenter, frames, videos.classes, gap)
    size = truths[0].shape
    plain, smooth = [label_map(z, size) for z in logits], smoothed(segmenter, frames, logits, size)
    parts = {"all": slice(None)}
    if split == "val":
        parts |= {"0 to 49": slice(0, CHOSEN), "50 to 100": slice(CHOSEN, None)}
    return {
        part: {
            "plain": scored(truths[at], plain[at], names, clean[at] if part == "all" else None),
            "smooth": scored(truths[at], smooth[at], names, clean[at] if part == "all" else None),
        }
        for part, at in parts.items()
    }


def davis(segmenter: Segmenter, root: Path, limit: int | None) -> dict[str, Any]:
    """IoU of each clip's object, over all pixels of all its frames."""
    videos, clips = open_videos(str(root), "val"), {}
    for video, name in list(enumerate(videos.videos))[:limit]:
        frames = [videos.frame(video, t) for t in range(videos.length(video))]
        masks = [videos.mask(video, t) for t in range(len(frames))]
        (known,) = [i for i in np.unique(np.stack(masks)) if 1 <= i <= len(videos.classes)]
        logits = exact_logits(segmenter, frames, words_for(videos.classes.names[known - 1]))
        size = masks[0].shape

        def object_iou(maps: Maps, masks: Maps = masks, known: Any = known) -> float:
            pairs = [(m == known, found == 0) for m, found in zip(masks, maps, strict=True)]
            union = sum(int((a | b).sum()) for a, b in pairs)
            return 100 * sum(int((a & b).sum()) for a, b in pairs) / max(union, 1)

        clips[name] = {
            "plain": object_iou([label_map(z, size) for z in logits]),
            "smooth": object_iou(smoothed(segmenter, frames, logits, size)),
        }
    gain = {name: clip["smooth"] - clip["plain"] for name, clip in clips.items()}
    worst = min(gain, key=lambda name: gain[name])
    means = {key: float(np.mean([clip[key] for clip in clips.values()])) for key in ("plain", "smooth")}
    return means | {"worst": [worst, gain[worst]], "clips": clips}


def curve(segmenter: Segmenter, root: Path, keys: list[Any]) -> dict[str, Any]:
    """mIoU of CamVid val against key frames, without smoothing: the stream itself at every K, network included."""
    videos = open_videos(str(root), "val")
    frames = [videos.frame(0, t) for t in range(videos.length(0))]
    truths, rows = truth_of(videos, len(frames)), {}
    for key in keys:
        options = StreamOptions(smooth=False, keyframes=key)
        stream = segmenter.stream(None, videos.classes, None, "farthest", options=options)
        stream.set_last(frames[-1], float(len(frames) - 1))
        maps = [stream.step(frame, float(t)).labels for t, frame in enumerate(frames)]
        row = scored(truths, maps, videos.classes.names)
        rows[str(key)] = row | {"seen": stream.computed / len(frames)}
    return rows


class Clip(FrameSource):
    """Frames in memory as a source."""

    name = "clip"
    time_base = Fraction(1, 1000)

    def __init__(self, frames: Frames, rate: int) -> None:
        self.pictures, self.rate = frames, Fraction(rate)
        self.height, self.width = frames[0].shape[:2]

    def __iter__(self) -> Iterator[VideoFrame]:
        for t, frame in enumerate(self.pictures):
            yield VideoFrame(frame, round(1000 * t / self.rate), t / float(self.rate))


def live(segmenter: Segmenter, root: Path, rate: int = 25, fps: float = 3.0) -> dict[str, Any]:
    """CamVid val played at 25 frames a second to a model slowed to 3: labels moved to every frame, and the same ones
    held."""
    videos = open_videos(str(root), "val")
    frames = [videos.frame(0, t) for t in range(videos.length(0))]
    truths, names = truth_of(videos, len(frames)), videos.classes.names
    options = StreamOptions(smooth=False)
    stream = segmenter.stream(
        Clip(frames, rate), videos.classes, None, "first", None, options, realtime="async", queue=len(frames)
    )
    found: dict[int, Any] = {}
    look = stream._find

    def slow(frame: Any, index: int, at: Any) -> Any:
        began = time.monotonic()
        finding = look(frame, index, at)
        found[index] = finding.logits
        time.sleep(max(0.0, 1 / fps - (time.monotonic() - began)))
        return finding

    stream._find = slow  # type: ignore[method-assign]
    results = list(stream)
    shown = [r for r in results if r.logits is not None]
    held = [label_map(found[r.index - r.age], r.labels.shape) for r in shown]
    some = [truths[r.index] for r in shown]
    moved = scored(some, [r.labels for r in shown], names)
    stuck = scored(some, held, names)
    return {
        "frames": len(frames),
        "out": len(results),
        "dropped": stream.dropped,
        "with labels": len(shown),
        "looks": stream.computed,
        "age": [float(np.mean([r.age for r in shown])), max(r.age for r in shown)],
        "moved": moved,
        "held": stuck,
    }


def cost(size: tuple[int, int], words: int, threads: int, frames: int = 60) -> dict[str, float]:
    """Milliseconds that smoothing adds to a frame: motion, blend and label map against the label map alone, in turn."""
    import cv2

    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (size[0], size[1] + 4 * frames, 3)).astype(np.float32), (0, 0), 5)
    wide = (255 * (wide - wide.min()) / np.ptp(wide)).astype(np.uint8)
    cells = (size[0] // 8, size[1] // 8)
    rough = rng.standard_normal((words, 6, 10)).astype(np.float32)
    logits = np.stack([cv2.resize(6 * plane, cells[::-1], interpolation=cv2.INTER_CUBIC) for plane in rough])
    past, plain, smooth = Propagator(threads=threads), [], []
    for t in range(frames):
        frame = np.ascontiguousarray(wide[:, 4 * t : 4 * t + size[1]])
        own = logits + 0.3 * rng.standard_normal(logits.shape).astype(np.float32)
        a = time.perf_counter()
        label_map(own, size, threads)
        b = time.perf_counter()
        past.look(frame)
        past.blend(own, 0, size)
        c = time.perf_counter()
        plain.append(b - a)
        smooth.append(c - b)
    middle = [1000 * float(np.median(values[5:])) for values in (plain, smooth)]
    return {"label map": middle[0], "with smoothing": middle[1], "added": middle[1] - middle[0]}


def speed(name: str, backend: str, precision: str, key: int, words: str | None, rounds: int) -> dict[str, Any]:
    """Frames a second of network and label map with and without key frames, in turn in one process."""
    segmenter = Segmenter.load(name, backend, precision)
    size = segmenter.engine.size
    clip = Clip([np.roll(_picture(size), 3 * t, 1) for t in range(10 * key)], 25)
    streams = {
        k: segmenter.stream(None, words, None, "first", options=StreamOptions(smooth=False, keyframes=k))
        for k in (1, key)
    }
    for stream in streams.values():
        stream.step(clip.pictures[0], 0.0)
    seconds: dict[int, list[float]] = {k: [] for k in streams}
    seen = streams[key].computed
    for turn in range(rounds):
        for k, stream in streams.items():
            began = time.perf_counter()
            pictures = clip.pictures if k > 1 else clip.pictures[:10]
            for t, frame in enumerate(pictures):
                stream.step(frame, float(turn * len(clip.pictures) + t + 1))
            seconds[k].append((time.perf_counter() - began) / len(pictures))
    fps = {k: 1 / float(np.median(values)) for k, values in seconds.items()}
    share = (streams[key].computed - seen) / (rounds * len(clip.pictures))
    row = {"bundle": segmenter.bundle.manifest.name, "backend": backend, "precision": precision, "size": size}
    row |= {"words": len(streams[1].names), "keyframes": key, "seen": share}
    return row | {"fps": fps[1], "fps with key frames": fps[key], "factor": fps[key] / fps[1]}


def _picture(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    import cv2

    rough = np.random.default_rng(1).integers(0, 256, (12, 20, 3)).astype(np.uint8)
    return cv2.resize(rough, size[::-1], interpolation=cv2.INTER_CUBIC)
