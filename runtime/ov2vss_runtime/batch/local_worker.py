"""The program of one worker process: jobs come through a pipe, and how they ended goes back.

python -m ov2vss_runtime.batch.local_worker DESCRIPTOR OUT [BUNDLE]
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path


def main(descriptor: int, out: Path, bundle: str | None = None) -> None:
    """Work until nobody is at the other end of the pipe.

    Args:
        descriptor: of the pipe.
        out: folder of the batch.
        bundle: where the plan's bundle is on this machine, if not where the plan says.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: who began this process ends it
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from ov2vss_runtime.batch.executors import attempt
    from ov2vss_runtime.batch.folder import BatchFolder
    from ov2vss_runtime.batch.records import Job
    from ov2vss_runtime.batch.work import a_worker

    connection, folder = Connection(descriptor), BatchFolder(out)
    with a_worker(bundle) as worker, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (text := connection.recv()) is not None:
            outcome = attempt(worker, Job.model_validate_json(text), folder)
            connection.send((None if outcome.done is None else outcome.done.model_dump_json(), outcome.error))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
