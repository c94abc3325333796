"""RTSP from a server that is not ours (aio-rtsp-toolkit, TCP only): timestamps, restarts, and two cameras at once."""

import importlib.util
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import pytest

from ov2vss_runtime.video.network import NetworkSource
from tests.conftest import SCRIPTS, moving_frames

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aio_rtsp_toolkit") is None, reason="pip install 'aio-rtsp-toolkit[server]'"
)


class Rtsp:
    """The server in a process of its own; ``stop`` and ``start`` take it away and bring it back."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.start()

    def start(self) -> None:
        serve = "import asyncio, sys; from aio_rtsp_toolkit.server import serve; "
        serve += "asyncio.run(serve(sys.argv[1], '127.0.0.1', int(sys.argv[2])))"
        self.program = subprocess.Popen(
            [sys.executable, "-c", serve, str(self.folder), str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def url(self, name: str, times: int = 0) -> str:
        """Of a file that is played ``times`` times; 0 for ever."""
        return f"rtsp://127.0.0.1:{self.port}/{name}?play_count={times}"

    def stop(self) -> None:
        self.program.kill()
        self.program.wait()


@pytest.fixture
def rtsp(tmp_path: Path) -> Iterator[Rtsp]:
    folder = tmp_path / "served"
    folder.mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "10"})
            stream.height, stream.width, stream.pix_fmt = 112, 168, "yuv420p"
            for rgb in moving_frames(50, (112, 168), seed):  # as cameras encode: no frame refers to a later one
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            container.mux(stream.encode(None))
    server = Rtsp(folder)
    yield server
    server.stop()


def test_frames_of_rtsp_have_the_times_of_the_camera(rtsp: Rtsp) -> None:
    """FFmpeg gives the first frame no timestamp, and hands over in one go what it looked at when it opened."""
    source = NetworkSource(rtsp.url("a.mp4", times=1), reconnect=0)
    assert (source.height, source.width, source.live, source.whole) == (112, 168, True, False)
    began = time.monotonic()
    read = list(source)
    assert len(read) == 50
    assert [f.time for f in read] == pytest.approx([k / 25 for k in range(50)], abs=1e-3)
    assert not any(f.gap for f in read)
    assert time.monotonic() - began < 4


def test_a_camera_that_plays_on_after_its_clip_has_no_gap(rtsp: Rtsp) -> None:
    source = NetworkSource(rtsp.url("b.mp4"), reconnect=0)
    read = list(islice(source, 70))
    source.close()
    assert [f.time for f in read] == pytest.approx([k / 25 for k in range(70)], abs=0.05)


def run(tmp_path: Path, bundle: Path, *args: str) -> subprocess.Popen:
    command = [SCRIPTS / "ov2vss-run", *args, "--bundle", bundle, "--threads", "1", "--no-smooth", "--json"]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_camera_that_is_switched_off_and_on(rtsp: Rtsp, bundle: Path, tmp_path: Path) -> None:
    part = tmp_path / "live.jsonl.part"
    program = run(tmp_path, bundle, rtsp.url("a.mp4"), "--no-video", "--jsonl", "live.jsonl", "--frames", "30",
                  "--reconnect", "20")  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not part.exists() or len(part.read_text().splitlines()) < 10:
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        rtsp.stop()
        time.sleep(1)
        rtsp.start()
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 0, err
    report = json.loads(out.splitlines()[-1])["sources"][0]
    assert (report["frames"], report["reconnects"]) == (30, 1)
    assert "back after" in err
    stamps = [json.loads(line)["time"] for line in (tmp_path / "live.jsonl").read_text().splitlines()]
    assert all(a < b for a, b in itertools.pairwise(stamps))
    assert max(b - a for a, b in itertools.pairwise(stamps)) > 1


def test_two_cameras_run_side_by_side(rtsp: Rtsp, bundle: Path, tmp_path: Path) -> None:
    """One after the other, the second would begin after the first one's end, and here that never comes."""
    program = run(tmp_path, bundle, rtsp.url("a.mp4"), rtsp.url("b.mp4"), "--out-dir", "out", "--masks", "m")
    try:
        deadline = time.monotonic() + 60
        while not all(len(list(tmp_path.glob(f"m/{name}/*.png"))) >= 3 for name in "ab"):
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        program.terminate()
        _, err = program.communicate(timeout=20)
    finally:
        program.kill()
    assert program.returncode == 130, err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.ov2vss.part.mp4", "b.ov2vss.part.mp4"]
