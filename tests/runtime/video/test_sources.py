"""Images, raw frames, cameras and network streams; what ends them and what breaks them."""

import io
import itertools
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.stream.pipeline import Prefetch
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.images import ImageSource
from ov2vss_runtime.video.live import CameraSource, RawSource
from ov2vss_runtime.video.network import NetworkSource
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import SourceOptions
from tests.conftest import moving_frames, write_video


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    folder.mkdir(parents=True)
    frames = moving_frames(len(names), size)
    for name, frame in zip(names, frames, strict=True):
        cv2.imwrite(str(folder / name), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return frames


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    frames = write_images(tmp_path / "drive/origin", ["f1.png", "f2.png", "f9.png", "f10.png"])
    (tmp_path / "drive/origin/notes.txt").write_text("not an image")
    source = open_source(tmp_path / "drive/origin", SourceOptions(rate=Fraction(10)))
    assert isinstance(source, ImageSource)
    assert (source.name, source.frames, source.height, source.width) == ("drive", 4, 48, 64)
    read = list(source)
    assert [f.name for f in read] == ["f1", "f2", "f9", "f10"]
    assert [f.time for f in read] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(np.array_equal(f.rgb, g) for f, g in zip(read, frames, strict=True))
    assert np.array_equal(source.last_frame().rgb, frames[-1])
    assert [f.name for f in open_source(str(tmp_path / "drive/origin/f1*.png"))] == ["f1", "f10"]


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    grey, deep = np.full((32, 32), 77, np.uint8), np.full((32, 32), 77 * 257, np.uint16)
    clear = np.dstack([np.full((32, 32, 3), (10, 20, 30), np.uint8), np.full((32, 32), 128, np.uint8)])
    for name, image, wanted in [("a.png", grey, [77] * 3), ("b.png", deep, [77] * 3), ("c.png", clear, [30, 20, 10])]:
        cv2.imwrite(str(tmp_path / name), image)
        (frame,) = open_source(str(tmp_path / name[0]) + "*.png")
        assert frame.rgb[5, 5].tolist() == wanted, name


def test_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "a", ["0.png", "1.png"])
    cv2.imwrite(str(tmp_path / "a/2.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(VideoError, match=r"2\.png is 20x20, the first image 64x48"):
        list(open_source(tmp_path / "a"))
    (tmp_path / "a/0.png").write_bytes(b"broken")
    with pytest.raises(VideoError, match=r"0\.png cannot be read as an image"):
        open_source(tmp_path / "a")
    with pytest.raises(VideoError, match="has no images"):
        open_source(tmp_path / "*.jpg")


@pytest.mark.parametrize(("pixels", "channels"), [("rgb24", 3), ("bgr24", 3), ("gray8", 1)])
def test_raw_frames(pixels: str, channels: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 6, 8, channels)).astype(np.uint8)

    class Trickle(io.RawIOBase):
        """A pipe gives what it has, not what was asked for."""

        def __init__(self) -> None:
            self.left = data.tobytes()

        def readinto(self, view) -> int:
            part, self.left = self.left[: min(50, len(view))], self.left[min(50, len(view)) :]
            view[: len(part)] = part
            return len(part)

    frames = list(RawSource(Trickle(), (6, 8), pixels, Fraction(5)))
    expected = {"rgb24": data, "bgr24": data[..., ::-1], "gray8": np.repeat(data, 3, axis=3)}[pixels]
    assert np.array_equal([f.rgb for f in frames], expected)
    assert [f.time for f in frames] == pytest.approx([0, 0.2, 0.4])


@pytest.mark.parametrize("size", [0, 100, 2 * 144 + 1])
def test_raw_frames_that_end_early(size: int) -> None:
    source = RawSource(io.BytesIO(bytes(size)), (6, 8))
    with pytest.raises(VideoError, match=f"ended after {size // 144} frames and {size % 144} of 144 bytes"):
        list(source)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match="there is no camera 87"):
        open_source("87")


def test_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        def __init__(self, index: int) -> None:
            self.left, self.released = 4, False

        def isOpened(self) -> bool:
            return True

        def set(self, *_: object) -> bool:
            return True

        def read(self):
            self.left -= 1
            image = np.full((20, 30, 3), (1, 2, 3), np.uint8)  # BGR
            return (True, image) if self.left >= 0 else (False, None)

        def release(self) -> None:
            self.released = True

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    source = CameraSource(0)
    assert (source.height, source.width, source.live) == (20, 30, True)
    frames = []
    with pytest.raises(VideoError, match="stopped sending"):  # noqa: PT012
        for frame in source:
            frames.append(frame)
    assert [f.rgb[0, 0].tolist() for f in frames] == [[3, 2, 1]] * 4
    assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))


class TvServer:
    """MPEG-TS over chunked HTTP on the loopback interface, at its own speed, until it is stopped.

    The colour of a frame says when it was made, in hundredths of a second.
    """

    def __init__(self, port: int = 0, frames: int = 10_000, rate: int = 25) -> None:
        tv = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    tv.send(self.wfile, frames, rate)
                    if tv.running:
                        self.wfile.write(b"0\r\n\r\n")  # a proper end; a stopped server just goes away
                except (OSError, av.error.FFmpegError):
                    pass
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            allow_reuse_address, daemon_threads = True, True

        self.running, self.sent = True, 0
        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tv.ts"

    def send(self, pipe, frames: int, rate: int) -> None:
        class Out:
            def write(self, data: bytes) -> int:
                pipe.write(b"%x\r\n%b\r\n" % (len(data), bytes(data)))
                pipe.flush()
                return len(data)

        with av.open(Out(), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=rate)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 2_000_000
            stream.codec_context.gop_size = 5
            began = time.monotonic()
            for index in range(frames):
                if not self.running:
                    break
                time.sleep(max(0, began + index / rate - time.monotonic()))
                picture = np.full((64, 96, 3), int(100 * time.monotonic()) % 200 + 20, np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
                self.sent += 1

    def stop(self) -> None:
        self.running = False
        self.server.shutdown()
        self.server.server_close()


def test_a_network_stream_survives_a_restart_of_its_server() -> None:
    tv = TvServer()
    port, frames, stopped = tv.port, [], None
    again: list[TvServer] = []
    source = NetworkSource(tv.url, reconnect=20)
    assert (source.height, source.width, source.live) == (64, 96, True)
    for frame in source:
        frames.append(frame)
        if len(frames) == 20:
            tv.stop()
            stopped = time.monotonic()
            threading.Timer(1.0, lambda: again.append(TvServer(port))).start()
        if frame.gap:
            gap = len(frames) - 1
        if source.reconnects and len(frames) > gap + 10:
            break
    again[0].stop()
    assert source.reconnects == 1
    assert sum(f.gap for f in frames) == 1
    assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
    # Time went on by the clock while it was away.
    assert 1.0 <= frames[gap].time - frames[gap - 1].time < time.monotonic() - stopped


def test_a_stream_that_ends_and_does_not_come_back_has_ended() -> None:
    tv = TvServer(frames=30, rate=100)
    source = NetworkSource(tv.url, reconnect=0)
    frames = list(source)
    tv.stop()
    assert 20 <= len(frames) <= 30
    with pytest.raises(VideoError, match=r"tv\.ts cannot be opened"):
        NetworkSource(tv.url)


def test_a_file_over_http_ends_where_it_ends(tmp_path: Path) -> None:
    """It has a length: its end is an end, not a lost connection."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler

    write_video(tmp_path / "v.mkv", moving_frames(30))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = open_source(f"http://user:secret@127.0.0.1:{server.server_address[1]}/v.mkv")
    assert "secret" not in source.shown
    assert len(list(source)) == 30
    assert source.reconnects == 0
    server.shutdown()


def test_a_slow_consumer_never_lags_more_than_the_queue() -> None:
    tv = TvServer(rate=50)
    ages = []
    with Prefetch(NetworkSource(tv.url), size=2, drop=True) as frames:
        for frame in frames:
            made = int(frame.rgb[32, 48, 0]) - 20
            ages.append((int(100 * time.monotonic()) - made) % 200 / 100)
            time.sleep(0.2)  # five a second of fifty
            if len(ages) == 15:
                break
        dropped, sent = frames.dropped, tv.sent
    tv.stop()
    assert dropped > 0.7 * sent
    # A frame waits for at most the one that is being worked on, plus what the codec keeps; without dropping, the
    # fifteenth would be 2.5 s old.
    assert max(ages[3:]) < 0.9, ages


def test_prefetch_hands_on_errors_after_what_came_before() -> None:
    def items():
        yield from range(3)
        raise VideoError("broken", "mend it")

    got = []
    with pytest.raises(VideoError, match="broken"), Prefetch(items(), 2) as waiting:  # noqa: PT012
        for item in waiting:
            got.append(item)
    assert got == [0, 1, 2]


def test_prefetch_is_bounded_and_stops() -> None:
    made, closed = [], []

    def items():
        try:
            for index in range(1000):
                made.append(index)
                yield index
        finally:
            closed.append(True)

    with Prefetch(items(), 3) as waiting:
        for item in waiting:
            time.sleep(0.01)
            assert len(made) <= item + 5
            if item == 10:
                break
    assert closed == [True]


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:32, :48] = (255, 0, 0)  # red in the upper left
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(-90)  # clockwise
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    reader = VideoReader(path)
    assert (reader.height, reader.width) == (96, 64)
    rgb = next(iter(reader)).rgb
    corners = {"upper left": rgb[10, 10], "upper right": rgb[10, 50], "lower left": rgb[80, 10], "lower": rgb[80, 50]}
    red = [name for name, pixel in corners.items() if pixel[0] > 150]
    # As ffprobe and players read it: a display matrix of -90 degrees turns the picture clockwise.
    assert red == ["upper right"]


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [("libx264", "yuv420p10le", "mp4"), ("ffv1", "gray", "mkv"), ("png", "rgba", "mov"), ("qtrle", "argb", "mov")],
)
def test_pixel_formats(tmp_path: Path, codec: str, pixels: str, suffix: str) -> None:
    """10 bits, grey and transparency: the picture is that of the same frames in plain RGB."""
    colour = (90, 90, 90) if pixels == "gray" else (200, 60, 40)
    path = write_video(tmp_path / f"v.{suffix}", [np.full((64, 64, 3), colour, np.uint8)] * 3, codec=codec,
                       pix_fmt=pixels)  # fmt: skip
    for frame in VideoReader(path):
        assert np.abs(frame.rgb.reshape(-1, 3).mean(0) - colour).max() < 12
