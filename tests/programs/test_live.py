"""``ov2vss-run`` on what is not a file: images, a pipe, a network stream; and what a killed run leaves."""

import itertools
import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from ov2vss_runtime.video.file import VideoReader
from tests.conftest import SCRIPTS, moving_frames, run_program, write_video
from tests.runtime.video.test_sources import TvServer


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_images_to_masks_of_the_same_names(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data/clip/origin"
    folder.mkdir(parents=True)
    for index, frame in enumerate(moving_frames(5, (112, 168))):
        cv2.imwrite(str(folder / f"{index:08d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    out = ("--masks", tmp_path / "m", "--npz", tmp_path / "n", "--npz-top", "3", "--jsonl", tmp_path / "a.jsonl")
    done = run_program(
        "ov2vss-run", folder, "--bundle", bundle, "--no-video", *out, "--confidence", "--rate", "10", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = list(Segmenter.load(bundle).stream(folder, options=StreamOptions(confidence=True)))
    written = lines(tmp_path / "a.jsonl")
    assert [line["name"] for line in written] == [f"{k:08d}" for k in range(5)]
    assert [line["time"] for line in written] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    for line, result in zip(written, results, strict=True):
        mask = np.asarray(Image.open(tmp_path / "m/clip" / f"{line['name']}.png"))
        assert np.array_equal(mask, result.labels + 1)
        for name, entry in line["classes"].items():
            here = result.labels == result.names.index(name)
            assert entry["area"] == pytest.approx(here.mean(), abs=1e-6)
            assert entry["confidence"] == pytest.approx(result.confidence[here].mean(), abs=1e-3)
        with np.load(tmp_path / "n/clip" / f"{line['name']}.npz", allow_pickle=False) as data:
            assert data["classes"].shape == (3, 16, 24)
            assert np.array_equal(data["classes"][0], result.logits.argmax(0))
    assert not list(tmp_path.glob("*.mp4"))


def test_raw_frames_on_standard_input(bundle: Path, tmp_path: Path) -> None:
    frames = moving_frames(6, (96, 128))
    command = [
        SCRIPTS / "ov2vss-run",
        "-",
        "--no-smooth",
        "--raw",
        "96x128",
        "--bundle",
        bundle,
        "--masks",
        tmp_path / "m",
    ]
    done = subprocess.run(
        command, input=np.stack(frames).tobytes(), capture_output=True, cwd=tmp_path, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    stream = Segmenter.load(bundle).stream(None, distant="first")
    for index, frame in enumerate(frames):
        mask = np.asarray(Image.open(tmp_path / f"m/stdin/{index:06d}.png"))
        assert np.array_equal(mask, stream.step(frame).labels + 1)
    assert VideoReader(tmp_path / "stdin.ov2vss.mp4").frames == 6
    cut = subprocess.run(command, input=bytes(50_000), capture_output=True, cwd=tmp_path, check=False, timeout=300)
    assert cut.returncode == 1
    assert b"ended after 1 frames and 13136 of 36864 bytes" in cut.stderr


def test_a_live_stream_that_goes_away_and_comes_back(bundle: Path, tmp_path: Path) -> None:
    tv = TvServer(rate=25)
    port, jsonl = tv.port, tmp_path / "live.jsonl"
    part = jsonl.with_name("live.jsonl.part")
    program = subprocess.Popen(
        [SCRIPTS / "ov2vss-run", tv.url, "--bundle", bundle, "--jsonl", jsonl, "--frames", "60", "--queue", "2",
         "--reconnect", "30", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    again: list[TvServer] = []
    try:
        deadline = time.monotonic() + 120
        while not part.exists() or len(part.read_text().splitlines()) < 15:
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        tv.stop()
        threading.Timer(1.5, lambda: again.append(TvServer(port))).start()
        out, err = program.communicate(timeout=120)
    finally:
        program.kill()
        for server in again:
            server.stop()
    assert program.returncode == 0, err
    report = json.loads(out.splitlines()[-1])["sources"][0]
    assert (report["frames"], report["reconnects"]) == (60, 1)
    assert "back after" in err
    written = lines(jsonl)
    stamps = [line["time"] for line in written]
    assert all(a < b for a, b in itertools.pairwise(stamps))
    assert max(b - a for a, b in itertools.pairwise(stamps)) > 1
    reader = VideoReader(tmp_path / "tv.ov2vss.mp4")
    assert [f.time - stamps[0] for f in reader] == pytest.approx([s - stamps[0] for s in stamps], abs=2e-3)


def test_kill_leaves_a_video_that_plays_up_to_the_last_two_seconds(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", moving_frames(400, (112, 168)), audio=True)
    program = subprocess.Popen(
        [SCRIPTS / "ov2vss-run", video, "--bundle", bundle, "--jsonl", "a.jsonl"], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    part = tmp_path / "a.jsonl.part"
    deadline = time.monotonic() + 120
    while not part.exists() or len(part.read_text().splitlines()) < 150:
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.wait()
    done = len(part.read_text().splitlines())
    assert done < 400
    assert not (tmp_path / "long.ov2vss.mp4").exists()
    with av.open(str(tmp_path / "long.ov2vss.part.mp4")) as container:
        times = [f.time for f in container.decode(video=0)]
    assert times[-1] >= (done - 1) / 25 - 2
    assert times == pytest.approx([k / 25 for k in range(len(times))], abs=1e-3)


def test_every_second_frame_is_held(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", moving_frames(9, (112, 168)))
    done = run_program(
        "ov2vss-run", video, "--bundle", bundle, "--every", "2", "--jsonl", "a.jsonl", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "9 frames, 4 held" in done.stdout
    report = json.loads(done.stdout.splitlines()[-1])["sources"][0]
    assert (report["frames"], report["computed"]) == (9, 5)
    written = lines(tmp_path / "a.jsonl")
    assert [line.get("held", False) for line in written] == [False, True] * 4 + [False]
    assert [line["classes"] for line in written[::2]][:4] == [line["classes"] for line in written[1::2]]
    assert VideoReader(tmp_path / "video.ov2vss.mp4").frames == 9


def test_a_file_by_the_clock(bundle: Path, tmp_path: Path) -> None:
    """``--realtime drop`` plays a file as a camera would: 60 frames at 30 a second take two seconds."""
    from fractions import Fraction

    video = write_video(tmp_path / "video.mp4", moving_frames(60, (112, 168)), time_base=Fraction(1, 30))
    stream = Segmenter.load(bundle).stream(video, realtime="drop", queue=2)
    began = time.monotonic()
    count = sum(1 for _ in stream)
    assert time.monotonic() - began > 1.9
    assert count + stream.dropped == 60


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-",), "--raw and the source - need each other"),
        (("video.mp4", "--raw", "10x10"), "--raw and the source - need each other"),
        (("video.mp4", "--no-video"), "nothing would be written"),
        (("video.mp4", "--no-video", "--out", "a.mp4", "--masks", "m"), "--no-video and --out contradict"),
        (("video.mp4", "--npz-top", "3"), "--npz-top is about --npz"),
        (("video.mp4", "--confidence"), "--confidence is about --jsonl"),
        (("video.mp4", "--raw-format", "gray8"), "--raw-format is about --raw"),
        (("video.mp4", "--mask-format", "gray"), "--mask-format is about --masks"),
        (("video.mp4", "--no-video", "--masks", "m", "--alpha", "1"), "--alpha is about a video"),
        (("a.mp4", "b.mp4", "--jsonl", "x"), "--jsonl names one file"),
        (("http://127.0.0.1:9/x.ts",), "127.0.0.1:9/x.ts cannot be opened"),
        (("nothing-*.png",), "has no images"),
        (("video.mp4", "--no-video", "--masks", ""), "'' names no place"),
        (("video.mp4", "--no-video", "--jsonl", "-"), "'-' names no place; write a path (./- for a file called -)"),
        (("video.mp4", "--alpha", "nan"), "nan is no number that can be used"),
        (("video.mp4", "--reconnect", "inf"), "inf is no number that can be used"),
        (("-", "--raw", ""), "size '' is not HEIGHTxWIDTH"),
    ],
)
def test_what_does_not_go_together_is_said(bundle: Path, tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    done = run_program("ov2vss-run", *args, "--bundle", bundle, cwd=tmp_path)
    wrong_usage = args[0] not in ("http://127.0.0.1:9/x.ts", "nothing-*.png")
    told = done.stderr.strip().splitlines()
    assert done.returncode == (2 if wrong_usage else 1), done.stderr
    assert len(told) == 1 or told[0].startswith("Usage: "), done.stderr  # of the options themselves, by click
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_list_backends() -> None:
    done = run_program("ov2vss-run", "--list-backends")
    assert done.returncode == 0
    told = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert told["onnxruntime"].startswith("yes: onnxruntime ")
    assert told["onnxruntime:cuda"].startswith(("no: ", "yes: "))
    assert len(told) == 7
