"""Jobs as Ray tasks, on two nodes of one machine: equal to one run, also when a node is killed on the way.

Slow (Ray takes ten seconds to start, and half a minute to notice a dead node); run with ``pytest -m slow``.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import moving_frames, run_program, write_video
from tests.hand_made import HandMade
from tests.runtime.batch.test_exactly_once import children, finish, plan_of

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def family(process: int) -> list[int]:
    found = [process]
    for child in children(process):
        found += family(child)
    return found


class Cluster:
    """Two nodes with a token, ports and a folder of their own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ov2vss-ray-"))
        (self.folder / "token").write_text(secrets.token_hex(32))
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "4",
            "OMP_NUM_THREADS": "1",
        }
        self.address = f"127.0.0.2:{free_port()}"
        self.started: list[int] = []
        common = ("--num-cpus=1", "--object-store-memory=90000000", "--disable-usage-stats", "--block")
        port = self.address.split(":")[1]
        head = ("--head", f"--port={port}", "--node-ip-address=127.0.0.2", "--include-dashboard=false")
        self.head = self._start(*head, f"--temp-dir={self.folder / 'r'}", *common)
        self._wait(1)
        self.second = self._start(f"--address={self.address}", "--node-ip-address=127.0.0.3", *common)
        self._wait(2)

    def _start(self, *args: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *args]
        log = (self.folder / f"log{len(self.started)}").open("w")
        process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.started.append(process.pid)
        return process

    def _wait(self, nodes: int) -> None:
        code = (
            f"import ray; ray.init('{self.address}', log_to_driver=False, logging_level='ERROR'); "
            f"print('nodes', sum(n['Alive'] for n in ray.nodes()))"
        )
        until, done = time.monotonic() + 120, None
        while time.monotonic() < until:
            done = subprocess.run([sys.executable, "-c", code], env=self.environment, capture_output=True, text=True)
            if f"nodes {nodes}" in done.stdout:
                return
            time.sleep(1)
        logs = "".join(p.read_text()[-1500:] for p in sorted(self.folder.glob("log*")))
        raise AssertionError(f"no {nodes} nodes: {done and done.stderr[-1500:]} {logs}")

    def kill_second(self) -> None:
        for pid in reversed(family(self.second.pid)):
            os.kill(pid, signal.SIGKILL)

    def end(self) -> list[int]:
        """End everything by its process id; returns what would not go."""
        mine = [pid for process in self.started for pid in family(process)]
        # Ray's own processes may have left the tree: those of this cluster name its folder.
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if str(self.folder) in (entry / "cmdline").read_text(errors="replace"):
                        mine.append(int(entry.name))
                except OSError:
                    continue
        for pid in dict.fromkeys(mine):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in (self.head, self.second):
            process.wait(20)
        time.sleep(1)
        shutil.rmtree(self.folder, ignore_errors=True)
        return [pid for pid in mine if _alive(pid)]


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        assert made.end() == []


@pytest.mark.parametrize("killed", [False, True])
def test_tasks_give_what_one_run_gives(killed: bool, cluster: Cluster, tmp_path: Path, monkeypatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, cluster.environment[name])
    bundle = HandMade(distant=True).write(tmp_path / "made")
    video = write_video(tmp_path / "video.mp4", moving_frames(240))
    whole = finish(plan_of(bundle, 1, tmp_path / "whole", video))
    folder = plan_of(bundle, 12, tmp_path / "out", video)
    if not killed:
        done = run_program("ov2vss-batch", "work", folder.out, "--ray", cluster.address, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "12 jobs done, 240 frames" in done.stdout
    else:
        code = "from ov2vss_runtime.start import batch; batch()"
        command = [sys.executable, "-c", code, "work", str(folder.out), "--ray", cluster.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 120
        while not [p for p in folder.parts.iterdir() if not p.name.endswith(".part")] and time.monotonic() < until:
            time.sleep(0.02)
        cluster.kill_second()
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "240 frames" in out
    assert finish(folder) == whole


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    bundle = HandMade().write(tmp_path / "made")
    folder = plan_of(bundle, 2, tmp_path / "out", write_video(tmp_path / "video.mp4", moving_frames(4)))
    done = run_program("ov2vss-batch", "work", folder.out, "--ray", f"127.0.0.2:{free_port()}", timeout=200)
    assert done.returncode == 1
    assert "no Ray cluster at" in done.stderr.splitlines()[-1]
