"""The folder of a batch: its plan, its parts, what failed; everything in it appears whole or not at all.

A part is made in a folder of a unique name, brought to the disk, and renamed once; ``done.json`` is the last that is
written into it. Whoever comes second drops its own part. A folder that its maker left behind is swept away by the next
worker: its lock is free, and its maker is not running on this machine, or it was not touched for an hour.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ov2vss_runtime.atomic_files import write_json, write_text
from ov2vss_runtime.batch.records import FORMAT, Done, Job
from ov2vss_runtime.errors import OV2VSSError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HOME, PLAN, JOBS, DONE, UNFINISHED = ".batch", "plan.json", "jobs.jsonl", "done.json", ".part"
LONG_AGO = 3600.0
"""Seconds without a change after which a part of another machine counts as left behind."""


@dataclass(frozen=True)
class BatchFolder:
    """A folder that ``ov2vss-batch plan`` wrote to; ``home`` is what lies under ``.batch`` in it."""

    out: Path

    @property
    def home(self) -> Path:
        return self.out / HOME

    @property
    def parts(self) -> Path:
        return self.home / "parts"

    # -- the plan --------------------------------------------------------------------------------------------------

    def write_plan(self, jobs: list[Job], failed: dict[str, str]) -> None:
        """Write jobs, then the plan itself: with it the folder is one of a batch.

        Raises:
            OV2VSSError: there is another plan already.
        """
        if (self.home / PLAN).exists():
            raise OV2VSSError(f"{self.out} has a plan already", f"use another --out-dir, or remove {self.home}")
        self.parts.mkdir(parents=True, exist_ok=True)
        (self.home / "failed").mkdir(exist_ok=True)
        (self.home / "merged").mkdir(exist_ok=True)
        write_text(self.home / JOBS, "".join(job.model_dump_json() + "\n" for job in jobs))
        write_json(self.home / PLAN, {"format": FORMAT, "jobs": len(jobs), "unreadable": failed})
        sync(self.home)

    def jobs(self) -> list[Job]:
        """The jobs in their order.

        Raises:
            OV2VSSError: there is no plan, or it is one of another version.
        """
        path = self.home / PLAN
        try:
            plan = json.loads(path.read_text("utf-8"))
            if plan["format"] != FORMAT:
                raise OV2VSSError(f"{path} has format {plan['format']}, this program reads {FORMAT}", "plan again")
            with (self.home / JOBS).open(encoding="utf-8") as lines:
                return [Job.model_validate_json(line) for line in lines]
        except FileNotFoundError:
            raise OV2VSSError(f"{self.out} has no plan", f"run: ov2vss-batch plan ... --out-dir {self.out}") from None
        except (ValueError, KeyError, TypeError, ValidationError):
            raise OV2VSSError(f"{self.home} holds no plan that can be read", "plan again in another folder") from None

    def unreadable(self) -> dict[str, str]:
        """Sources that could not be planned, and why."""
        return dict(json.loads((self.home / PLAN).read_text("utf-8"))["unreadable"])

    # -- parts -----------------------------------------------------------------------------------------------------

    def part(self, job: str) -> Path:
        """Where the finished part of a job is."""
        return self.parts / job

    def done(self, job: str) -> Done | None:
        """What a finished job says; None while it is not finished."""
        try:
            return Done.model_validate_json((self.part(job) / DONE).read_text("utf-8"))
        except FileNotFoundError:
            return None

    @contextmanager
    def new_part(self, job: str) -> Iterator[Path]:
        """A folder of this process alone; it is removed at the end unless :meth:`publish` has renamed it."""
        name = f"{job}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}{UNFINISHED}"
        folder = self.parts / name
        folder.mkdir(parents=True)
        lock = _locked(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def publish(self, folder: Path, done: Done) -> bool:
        """Give a complete part its name; False if somebody else was first, whose part then counts."""
        sync_tree(folder)
        write_text(folder / DONE, done.model_dump_json() + "\n")
        sync(folder)
        try:
            # Onto a folder that holds something this fails, on every system.
            folder.rename(self.part(done.job))
        except OSError:
            if self.done(done.job) is None:
                raise
            return False
        sync(self.parts)
        self.forget_failure(done.job)
        return True

    def sweep(self) -> int:
        """Remove what killed workers left behind; returns how many folders."""
        removed = 0
        for folder in self.parts.glob(f"*{UNFINISHED}"):
            if _left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def remove(self, job: str) -> None:
        """Remove the part of a job whose source is merged."""
        shutil.rmtree(self.part(job), ignore_errors=True)

    # -- merged sources --------------------------------------------------------------------------------------------

    def merged(self, source: str) -> dict[str, Any] | None:
        """What :meth:`mark_merged` was told about a source, or None."""
        try:
            return dict(json.loads((self.home / "merged" / f"{source}.json").read_text("utf-8")))
        except FileNotFoundError:
            return None

    def mark_merged(self, source: str, facts: dict[str, Any]) -> None:
        """All outputs of a source have their places."""
        path = self.home / "merged" / f"{source}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)

    def unmark_merged(self, source: str) -> None:
        """Somebody has removed an output: the source is to be done again."""
        (self.home / "merged" / f"{source}.json").unlink(missing_ok=True)

    # -- failures --------------------------------------------------------------------------------------------------

    def fail(self, job: str, source: str, error: str) -> None:
        """Keep why a job failed, for ``status``."""
        write_json(self.home / "failed" / f"{job}.json", {"job": job, "source": source, "error": error})

    def forget_failure(self, job: str) -> None:
        (self.home / "failed" / f"{job}.json").unlink(missing_ok=True)

    def failures(self) -> list[dict[str, Any]]:
        """What failed and was not done since."""
        found = []
        for path in sorted((self.home / "failed").glob("*.json")):
            with suppress(FileNotFoundError):
                found.append(json.loads(path.read_text("utf-8")))
        return [failure for failure in found if self.done(failure["job"]) is None]


def _locked(folder: Path) -> int | None:
    """A lock on a folder that ends with the process; None where there are none."""
    if fcntl is None:
        return None
    number = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return number


def _left_behind(folder: Path) -> bool:
    try:
        host, process = folder.name.removesuffix(UNFINISHED).rsplit(".", 3)[1:3]
        number = _lock_if_free(folder)
    except (ValueError, OSError):
        return False
    if number == -1:
        return False
    try:
        newest = max((path.stat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
    except OSError:
        return False  # somebody writes there, or removes it
    finally:
        if number is not None:
            os.close(number)
    if host == socket.gethostname() and process.isdecimal() and not _runs(int(process)):
        return True
    return time.time() - newest > LONG_AGO


def _lock_if_free(folder: Path) -> int | None:
    """A lock; -1 where somebody holds it, None where there are no locks."""
    if fcntl is None:
        return None
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return -1
    except OSError:
        pass
    return number


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync(folder: Path) -> None:
    """Bring a folder's own entries to the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sync_tree(folder: Path) -> None:
    """Bring everything below a folder to the disk."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            number = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
        sync(Path(place))
