"""Where jobs are done: each executor takes jobs from a queue, which may still grow, and tells how each ended.

To add one: a function ``(queue, out, ...) -> Iterator[Outcome]`` whose workers call
:meth:`ov2vss_runtime.batch.work.Worker.work`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ov2vss_runtime.batch.folder import BatchFolder
from ov2vss_runtime.batch.records import Done, Job
from ov2vss_runtime.console import one_line
from ov2vss_runtime.errors import OV2VSSError

TRIES = 3
"""How often a job is begun whose worker dies."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: what its part says, or an error in one line."""

    job: Job
    done: Done | None
    error: str = ""


def attempt(worker: Any, job: Job, folder: BatchFolder) -> Outcome:
    """Do one job; what goes wrong with it is an outcome and ends nobody."""
    try:
        return Outcome(job, worker.work(job, folder))
    except (OV2VSSError, OSError, MemoryError) as error:
        return Outcome(job, None, one_line(error) or type(error).__name__)
    except Exception as error:
        return Outcome(job, None, f"{type(error).__name__}: {one_line(error)}")


class LocalProcess:
    """One worker process, and the job that it has."""

    def __init__(self, out: Path, bundle: str | None) -> None:
        self.connection, other = multiprocessing.Pipe()
        # A program of its own: nothing of the caller's is imported again, and it holds no end of other workers' pipes.
        command = [sys.executable, "-m", "ov2vss_runtime.batch.local_worker", str(other.fileno()), str(out)]
        self.process = subprocess.Popen(command + ([bundle] if bundle else []), pass_fds=[other.fileno()])
        other.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        with suppress(OSError):  # one that has died is noticed by its silence
            self.connection.send(job.model_dump_json())

    def answer(self) -> Outcome | None:
        """How its job ended; None if the process has died."""
        job, self.job = self.job, None
        assert job is not None
        try:
            done, error = self.connection.recv()
        except (EOFError, OSError):
            self.process.wait()
            return None
        return Outcome(job, None if done is None else Done.model_validate_json(done), error)

    def end(self, patience: float) -> None:
        """End the process: after its job if that takes no longer than ``patience`` in seconds, else at once."""
        with suppress(OSError):
            self.connection.send(None)
        self.connection.close()
        for stop, seconds in ((None, patience), (self.process.terminate, 5.0), (self.process.kill, None)):
            if stop is not None:
                stop()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return


def local(queue: deque[Job], out: Path, workers: int, bundle: str | None = None) -> Iterator[Outcome]:
    """Processes of this machine, one job each at a time; one that dies is replaced and its job is done again."""
    crew: list[LocalProcess] = []
    tries: Counter[str] = Counter()
    finished = False
    try:
        while queue or any(member.job for member in crew):
            idle = [member for member in crew if member.job is None]
            while queue:
                if not idle and len(crew) < workers:
                    idle.append(LocalProcess(out, bundle))
                    crew.append(idle[-1])
                if not idle:
                    break
                job = queue.popleft()
                tries[job.id] += 1
                idle.pop().give(job)
            busy = {member.connection: member for member in crew if member.job is not None}
            for ready in wait(list(busy), timeout=1.0):
                member = busy[ready]  # type: ignore[index]
                given = member.job
                assert given is not None
                outcome = member.answer()
                if outcome is not None:
                    yield outcome
                    continue
                crew.remove(member)
                how = _how_it_ended(member.process.returncode)
                if tries[given.id] < TRIES:
                    queue.appendleft(given)
                else:
                    yield Outcome(given, None, f"its worker {how}, {TRIES} times; look at the file and at the memory")
        finished = True
    finally:
        for member in crew:
            member.end(10.0 if finished else 0.0)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with {code}"


def shard_of(text: str | None, environment: dict[str, str] | None = None) -> tuple[int, int]:
    """(i, n) of ``i/n``; ``auto`` takes both from SLURM, ``auto/n`` the index from Kubernetes or SLURM.

    >>> shard_of("2/8"), shard_of("auto", {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"})
    ((2, 8), (1, 4))

    Raises:
        OV2VSSError: it is none.
    """
    if text is None:
        return 0, 1
    env = dict(os.environ) if environment is None else environment
    index, _, count = text.partition("/")
    if index == "auto":
        array = "SLURM_ARRAY_TASK_ID" in env
        first = int(env.get("SLURM_ARRAY_TASK_MIN", "0")) if array else 0
        found = env.get("SLURM_ARRAY_TASK_ID" if array else "SLURM_PROCID", env.get("JOB_COMPLETION_INDEX", ""))
        counted = env.get("SLURM_ARRAY_TASK_COUNT" if array else "SLURM_NTASKS", "")
        index = str(int(found) - first) if found.isdecimal() else ""
        count = count or counted
        if not index or not count:
            raise OV2VSSError(
                "--shard auto finds no index and number of shards",
                "set SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, SLURM_PROCID and SLURM_NTASKS, or "
                "JOB_COMPLETION_INDEX with --shard auto/N",
                usage=True,
            )
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise OV2VSSError(f"shard {text!r} is none", "write i/n with i from 0 to n - 1, like 0/4", usage=True)
    return int(index), int(count)
