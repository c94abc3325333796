"""Doing what is missing of a batch, and saying how far it is."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ov2vss_runtime.batch.executors import Outcome
from ov2vss_runtime.batch.folder import BatchFolder
from ov2vss_runtime.batch.merging import is_merged
from ov2vss_runtime.batch.records import Job
from ov2vss_runtime.progress import SECONDS_BETWEEN_LINES, duration

log = logging.getLogger("ov2vss")
Execute = Callable[[deque[Job]], Iterator[Outcome]]


def missing(folder: BatchFolder, jobs: list[Job], shard: tuple[int, int] = (0, 1)) -> list[Job]:
    """Jobs of a shard that are not done, and sources that have to be done in one piece and are not."""
    index, count = shard
    found: dict[str, Job] = {}
    merged: dict[str, bool] = {}
    for job in jobs[index::count]:
        name = job.source.name
        if name not in merged:
            merged[name] = folder.merged(name) is not None and is_merged(folder, job)
        if merged[name]:
            continue
        done = folder.done(job.id)
        if done is None:
            found[job.id] = job
        elif done.untrusted and folder.done(job.whole.id) is None:
            found[job.whole.id] = job.whole
    return list(found.values())


@dataclass
class Tally:
    """What one call of ``work`` has done."""

    total: int
    frames: int = 0
    jobs: int = 0
    fallbacks: int = 0
    user_seconds: float = 0.0
    failed: list[dict[str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        if outcome.done is None:
            self.failed.append({"source": outcome.job.source.location, "job": outcome.job.id, "error": outcome.error})
            return
        self.jobs += 1
        self.frames += outcome.done.frames
        self.user_seconds += outcome.done.user_seconds

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.began, 1e-9)

    def line(self) -> str:
        over = self.jobs + len(self.failed)
        left = self.seconds / max(over, 1) * (self.total - over)
        errors = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"{over} of {self.total} jobs, {self.frames} frames, {self.frames / self.seconds:.1f} frames/s, "
            f"about {duration(left)} left{errors}"
        )

    def summary(self) -> dict[str, Any]:
        return {
            "jobs": self.jobs,
            "frames": self.frames,
            "seconds": self.seconds,
            "user_seconds": self.user_seconds,
            "fps": self.frames / self.seconds,
            "fallbacks": self.fallbacks,
            "failed": self.failed,
        }


def work_off(folder: BatchFolder, jobs: list[Job], execute: Execute, shard: tuple[int, int] = (0, 1)) -> Tally:
    """Do what is missing of a shard; a source that fails is named and does not stop the others."""
    swept = folder.sweep()
    if swept:
        log.info("%d parts that killed workers left behind are removed", swept)
    queue = deque(missing(folder, jobs, shard))
    tally = Tally(len(queue))
    seen = {job.id for job in queue}
    terminal = sys.stderr is not None and sys.stderr.isatty()
    with tqdm(total=len(queue), desc="batch", unit="job", disable=not terminal, leave=False) as bar:
        for outcome in execute(queue):
            tally.add(outcome)
            if outcome.done is None:
                folder.fail(outcome.job.id, outcome.job.source.location, outcome.error)
            elif outcome.done.untrusted and outcome.job.whole.id not in seen:
                queue.append(outcome.job.whole)
                seen.add(outcome.job.whole.id)
                tally.total, tally.fallbacks = tally.total + 1, tally.fallbacks + 1
                bar.total = tally.total
            bar.set_postfix_str(f"{tally.frames / tally.seconds:.1f} frames/s, {len(tally.failed)} failed")
            bar.update()
            if not terminal and len(queue) and time.monotonic() - tally.said > SECONDS_BETWEEN_LINES:
                tally.said = time.monotonic()
                log.info("%s", tally.line())
    return tally


def status(folder: BatchFolder) -> dict[str, Any]:
    """How far the whole archive is, from what lies in its folder."""
    jobs = folder.jobs()
    files: dict[str, list[Job]] = {}
    for job in jobs:
        files.setdefault(job.source.location, []).append(job)
    frames = expected = done_jobs = files_done = merged = 0
    seconds = 0.0
    fallbacks: list[dict[str, str]] = []
    for location, pieces in files.items():
        expected += sum(job.frames or 0 for job in pieces)
        facts = folder.merged(pieces[0].source.name)
        if facts is not None and is_merged(folder, pieces[0]):
            files_done, merged, done_jobs = files_done + 1, merged + 1, done_jobs + len(pieces)
            frames, seconds = frames + facts["frames"], seconds + facts["seconds"]
            continue
        parts = [folder.done(job.id) for job in pieces]
        done_jobs += sum(part is not None for part in parts)
        if doubt := next((part.untrusted for part in parts if part is not None and part.untrusted), ""):
            fallbacks.append({"source": location, "reason": doubt})
            parts = [folder.done(pieces[0].whole.id)]
        good = [part for part in parts if part is not None]
        files_done += len(good) == len(parts)
        frames += sum(part.frames for part in good)
        seconds += sum(part.seconds for part in good)
    failed = folder.failures() + [
        {"job": "", "source": source, "error": error} for source, error in folder.unreadable().items()
    ]
    per_frame = seconds / frames if frames else None
    return {
        "files": len(files),
        "files_done": files_done,
        "merged": merged,
        "jobs": len(jobs),
        "jobs_done": done_jobs,
        "frames": expected,
        "frames_done": frames,
        "worker_seconds": seconds,
        "worker_seconds_left": None if per_frame is None else per_frame * max(0, expected - frames),
        "one_piece": fallbacks
        + [{"source": job.source.location, "reason": job.why_whole} for job in jobs if job.why_whole],
        "failed": failed,
    }
