"""What comes over a network: files with sound, breaks, mirrors; senders that restart their clock or have none."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.video.network import NetworkSource, RemoteFile, open_network
from tests.runtime.video.test_faults import loudness, quarters_of, set_matrix, streams, write, write_both


class Site:
    """A server with one thing on it, on the loopback interface.

    Args:
        data: a file, given in byte ranges; or what a live sender says, piece by piece, until it is closed.
        kind: its media type.
        breaks: a connection that began before this byte is cut there.
    """

    def __init__(self, data: bytes | Iterator[bytes], kind: str = "video/mp2t", breaks: int | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.give(data) if isinstance(data, bytes) else self.stream(data)

            def give(self, file: bytes) -> None:
                asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(asked[1]) if asked else 0
                self.send_response(206 if asked else 200)
                self.send_header("Connection", "close")
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(len(file) - start))
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(file) - 1}/{len(file)}")
                self.end_headers()
                self.wfile.write(file[start : breaks if breaks and start < breaks else None])

            def stream(self, pieces: Iterator[bytes]) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Content-Type", kind)
                self.end_headers()
                for piece in chain(pieces, (b"",)):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.flush()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v"

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_file_on_a_server_keeps_its_sound_and_all_frames(suffix: str, tmp_path: Path) -> None:
    file = write_both(tmp_path / f"v.{suffix}", seconds=2.0)
    with Site(file.read_bytes()) as url:
        source = open_network(url)
        assert isinstance(source, RemoteFile)
        assert not source.live
        assert source.last_frame().time == pytest.approx(1.96)
        write(source, tmp_path / "out.mp4")
    (_, start, end), (name, _, sound_end) = streams(tmp_path / "out.mp4")
    assert (start, end, name) == (0, pytest.approx(2.0), "aac")
    assert sound_end == pytest.approx(2.0, abs=0.06)
    assert loudness(tmp_path / "out.mp4", 440, 0.5, 1.5) == pytest.approx(0.5, abs=0.12)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 50


def test_a_file_whose_clock_began_an_hour_ago_and_that_breaks_off_is_not_complete(tmp_path: Path) -> None:
    written = write_both(tmp_path / "v.ts", seconds=4.0, start=3600).read_bytes()
    stuffing = 40 * (b"\x47\x1f\xff\x10" + 184 * b"\xff")  # as senders of a constant rate do
    file = b"".join(written[at : at + 188] + stuffing for at in range(0, len(written), 188))
    with Site(file) as url:
        assert len(list(open_network(url))) == 100
    with Site(file, breaks=len(file) // 2) as url:
        source, read = open_network(url), []
        assert source.whole
        with pytest.raises(VideoError, match=r"broke off at [12]\.\d of 4\.\d s"):  # noqa: PT012
            for frame in source:
                read.append(frame)
    assert 20 < len(read) < 80


def test_a_sender_that_restarts_its_clock_restarts_the_state(bundle: Path, tmp_path: Path) -> None:
    """Two recordings on one connection: after the jump, logits are bit for bit those of a stream that begins there."""
    first = write_both(tmp_path / "a.ts", start=100, size=(112, 168), seconds=0.4)
    second = write_both(tmp_path / "b.ts", start=5, size=(112, 168), seconds=0.4)
    segmenter, options = Segmenter.load(bundle), StreamOptions(logits=True, smooth=False)
    with Site(iter([first.read_bytes(), second.read_bytes()])) as url:
        source = NetworkSource(url, reconnect=0)
        assert source.live
        with segmenter.stream(source, distant="first", options=options, realtime="wait") as stream:
            restarted: list[int] = []
            original = stream.restart
            stream.restart = lambda: (restarted.append(stream.index), original())[1]
            results = list(stream)
    assert len(results) == 20
    assert restarted == [10]
    times = [source.time_base * r.pts for r in results]
    assert np.diff(np.array(times, float)) == pytest.approx(np.full(19, 0.04), abs=2e-3)
    alone, going_on = (segmenter.stream(None, distant="first", options=options) for _ in range(2))
    for result in results[10:]:
        np.testing.assert_array_equal(result.logits, alone.step(result.frame).logits)
    for result in results[:11]:
        unbroken = going_on.step(result.frame).logits
    assert not np.array_equal(results[10].logits, unbroken)


def test_frames_without_timestamps_have_those_of_their_arrival() -> None:
    """Motion JPEG, as many cameras send it: FFmpeg would make up 25 frames a second for five."""

    def camera() -> Iterator[bytes]:
        for number in range(12):
            picture = cv2.imencode(".jpg", np.full((48, 64, 3), 10 * number, np.uint8))[1].tobytes()
            yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(picture), picture)
            time.sleep(0.2)

    with Site(camera(), "multipart/x-mixed-replace; boundary=frame") as url:
        source = NetworkSource(url, reconnect=0)
        began, read = None, []
        for frame in source:
            began = time.monotonic() if began is None else began
            read.append((frame.time, time.monotonic() - began))
    times, arrivals = np.array(read[:11]).T
    assert len(times) == 11
    late = times[-1] - 10 / 25
    assert late > 0.7, times  # by the clock two seconds or more pass, by 25 frames a second 0.4
    assert np.abs(times - arrivals).max() < 0.15


@pytest.mark.parametrize("live", [False, True])
def test_mirrors_and_turns_over_http(live: bool, tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = (255, 0, 0)
    with av.open(str(tmp_path / "v.mp4"), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    data = set_matrix((tmp_path / "v.mp4").read_bytes(), (0, 1, 1, 0))  # along the diagonal
    with Site(iter([data]) if live else data, "video/mp4") as url:
        source = open_network(url, reconnect=0)
        assert (source.height, source.width) == (96, 64)
        assert quarters_of(next(iter(source)).rgb) == [[0, 0]]
    data = set_matrix(data, (-1, 0, 0, 1))
    with Site(iter([data]) if live else data, "video/mp4") as url:
        source = open_network(url, reconnect=0)
        assert (source.height, source.width) == (64, 96)
        assert quarters_of(next(iter(source)).rgb) == [[0, 1]]
