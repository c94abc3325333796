"""Jobs as Ray tasks. Tasks and no actors: Ray runs those of a lost node on another one, while actors can hang."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ov2vss_runtime.batch.executors import Outcome, attempt
from ov2vss_runtime.batch.folder import BatchFolder
from ov2vss_runtime.batch.records import Done, Job
from ov2vss_runtime.batch.work import Worker
from ov2vss_runtime.console import one_line
from ov2vss_runtime.errors import OV2VSSError

RETRIES = 9
"""How often Ray begins a task anew whose worker or node is lost."""
AHEAD = 2
"""Tasks given to Ray for each that the cluster can run at once."""
PATIENCE = 10.0
"""Seconds that a cluster has to take a connection."""
_workers: dict[tuple[str, str | None], Worker] = {}
"""Of this process: Ray gives a process one task after the other, and the model stays loaded."""


def do(text: str, out: str, bundle: str | None) -> tuple[str | None, str]:
    """One job in a worker process of Ray: what its part says as JSON, or an error."""
    worker = _workers.setdefault((out, bundle), Worker(bundle))
    outcome = attempt(worker, Job.model_validate_json(text), BatchFolder(Path(out)))
    return None if outcome.done is None else outcome.done.model_dump_json(), outcome.error


def on_ray(
    queue: deque[Job], out: Path, address: str, bundle: str | None = None, gpus: float = 0.0
) -> Iterator[Outcome]:
    """Tasks on a Ray cluster, each with as many processors as its job has threads.

    Args:
        queue: jobs; it may grow.
        out: folder of the batch, by a path that every node has.
        address: of the cluster, ``auto`` for the one of this machine, ``local`` for one that ends with this call.
        bundle: where the plan's bundle is on the nodes, if not where the plan says.
        gpus: share of a GPU that a task takes.

    Raises:
        OV2VSSError: there is no cluster at that address, or none of its nodes can run a task.
    """
    ray: Any = import_module("ray")
    _knock(address)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OV2VSSError(
            f"no Ray cluster at {address} ({one_line(error)})", "start one with: ray start --head; or use --ray local"
        ) from None
    try:
        threads = queue[0].model.threads if queue else 1
        wanted = {"num_cpus": threads, "num_gpus": gpus}
        fits = sum(_fitting(node.get("Resources", {}), threads, gpus) for node in ray.nodes() if node["Alive"])
        if fits < 1:
            raise OV2VSSError(
                f"no node of the cluster at {address} has {threads} processors and {gpus:g} GPUs",
                "plan with fewer --threads, or give less with --gpus",
            )
        task = ray.remote(**wanted, max_retries=RETRIES)(do)
        running: dict[Any, Job] = {}
        while queue or running:
            while queue and len(running) < AHEAD * max(fits, 1):
                job = queue.popleft()
                running[task.remote(job.model_dump_json(), str(out.absolute()), bundle)] = job
            ready, _ = ray.wait(list(running), timeout=1.0)
            for reference in ready:
                job = running.pop(reference)
                try:
                    done, told = ray.get(reference)
                except ray.exceptions.RayError as lost:
                    yield Outcome(job, None, f"Ray has lost it: {one_line(lost)[:300]}")
                    continue
                yield Outcome(job, None if done is None else Done.model_validate_json(done), told)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries for minutes to reach a machine that does not answer."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise OV2VSSError(
            f"no Ray cluster at {address} ({error.strerror or error})",
            "start one with: ray start --head; or use --ray local",
        ) from None


def _fitting(resources: dict[str, float], threads: int, gpus: float) -> int:
    """Tasks that a node runs at once."""
    by_cpu = int(resources.get("CPU", 0) // threads)
    return by_cpu if not gpus else min(by_cpu, int(resources.get("GPU", 0) // gpus))
