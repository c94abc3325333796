"""Several sources in one call: files one after the other, live sources at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.outputs.targets import Targets
from ov2vss_runtime.stream.runner import run
from ov2vss_runtime.stream.segmenter_stream import SegmenterStream


@dataclass(frozen=True)
class Failure:
    """A source that could not be run to its end, and why."""

    source: str
    error: Exception


Job = tuple[str, Callable[[], SegmenterStream], Targets, bool]
"""A source as the user named it, what opens its stream, where its results go, and whether it is live."""


def run_all(jobs: Sequence[Job], done: Callable[[dict[str, Any]], None]) -> list[dict[str, Any] | Failure]:
    """Run every source; one that fails does not stop the others.

    Args:
        jobs: the sources.
        done: is told of each report as it comes.

    Returns:
        A report or a failure for each, in order.

    Raises:
        KeyboardInterrupt: after every run has kept what it had.
    """
    results: list[dict[str, Any] | Failure] = [Failure(text, RuntimeError("it did not run")) for text, *_ in jobs]
    streams: list[SegmenterStream] = []
    live = [index for index, job in enumerate(jobs) if job[3]] if len(jobs) > 1 else []

    def work(index: int) -> None:
        text, open_stream, targets, _ = jobs[index]
        try:
            stream = open_stream()
            streams.append(stream)
            results[index] = report = run(stream, targets, quiet=len(live) > 0)
            done(report)
        except (OV2VSSError, OSError) as error:
            if len(jobs) == 1:
                raise
            results[index] = Failure(text, error)
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise

    threads = [threading.Thread(target=work, args=(index,), name="ov2vss-live", daemon=True) for index in live]
    for thread in threads:
        thread.start()
    try:
        for index in range(len(jobs)):
            if index not in live:
                work(index)
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.1)
    except BaseException:
        for stream in list(streams):
            stream.interrupt()
        for thread in threads:
            thread.join(2.0)
        raise
    return results
