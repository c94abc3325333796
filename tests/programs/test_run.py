"""``ov2vss-run`` from the outside: outputs, words at run time, and every bad input as one clear line."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.video.file import VideoReader
from tests.conftest import SCRIPTS, moving_frames, run_program, write_video
from tests.hand_made import HandMade


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", moving_frames(12, (112, 168)), audio=True)


def test_outputs(bundle: Path, video: Path, tmp_path: Path) -> None:
    done = run_program("ov2vss-run", video, "--bundle", bundle, "--masks", tmp_path / "masks", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar off a terminal
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["frames"] == 12
    assert {"fps", "seconds", "stages_ms", "outputs"} <= report.keys()
    assert {"decode", "backbone", "step", "decoder", "labels", "encode"} <= report["stages_ms"].keys()
    out = VideoReader(tmp_path / "video.ov2vss.mp4")
    source = VideoReader(video)
    assert (out.frames, out.height, out.width, out.has_audio) == (12, source.height, source.width, True)
    assert [f.time for f in out] == pytest.approx([f.time for f in source])
    with av.open(str(tmp_path / "video.ov2vss.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"

    # The masks are what the library gives for the same file: index + 1.
    masks = sorted((tmp_path / "masks" / "video").glob("*.png"))
    assert [m.name for m in masks] == [f"{i:06d}.png" for i in range(12)]
    for path, result in zip(masks, Segmenter.load(bundle).stream(video), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), result.labels + 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", "video.ov2vss.mp4"]


def test_words_at_run_time(bundle: Path, video: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("background\nred square, red box\n")
    labels = []
    for index, words in enumerate(("background; red square, red box", "words.txt")):
        done = run_program(
            "ov2vss-run",
            video,
            "--bundle",
            bundle,
            "--vocab",
            words,
            "--out",
            f"{index}.mp4",
            "--masks",
            str(index),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        labels.append(np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / str(index)).rglob("*.png"))]))
    assert np.array_equal(labels[0], labels[1])
    assert set(np.unique(labels[0])) <= {1, 2}


def test_several_sources_equal_separate_runs(bundle: Path, video: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", moving_frames(9, (112, 168), seed=5))
    done = run_program(
        "ov2vss-run", video, other, "--bundle", bundle, "--out-dir", tmp_path / "both", "--masks", tmp_path / "a"
    )
    assert done.returncode == 0, done.stderr
    for source in (video, other):
        alone = run_program(
            "ov2vss-run", source, "--bundle", bundle, "--out-dir", tmp_path / "alone", "--masks", tmp_path / "b"
        )
        assert alone.returncode == 0, alone.stderr
        for path in (tmp_path / "a" / source.stem).glob("*.png"):
            assert path.read_bytes() == (tmp_path / "b" / source.stem / path.name).read_bytes()


def check_refusal(done, message: str, folder: Path, before: set[Path], code: int = 1) -> None:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert set(folder.rglob("*")) == before, "something was left behind"


def test_bad_input_is_one_clear_line(bundle: Path, video: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "twice.txt").write_text("road\nsky\nroad\n")
    flipped = Path(shutil.copytree(bundle, tmp_path / "flipped"))
    data = bytearray((flipped / "decoder.onnx").read_bytes())
    data[1000] ^= 255
    (flipped / "decoder.onnx").write_bytes(data)
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.mp4").mkdir()
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    before = set(tmp_path.rglob("*"))
    whole = ["--bundle", bundle]
    for args, message in [
        (["missing.mp4", *whole], "missing.mp4 does not exist"),
        (["pipe.mp4", *whole], "pipe.mp4 is a pipe or a device, and a video is read several times"),
        (["", *whole], "the source has no name"),
        ([video, *whole, "--vocab", "road; c#"], "'#' would be a comment"),
        ([video, *whole, "--out", "a.gif"], "a.gif does not end in .mp4"),
        (["text.mp4", *whole], "text.mp4 cannot be opened as a video"),
        (["cut.mp4", *whole], "cut.mp4"),
        ([video, *whole, "--vocab", "empty.txt"], "empty.txt: no class names"),
        ([video, *whole, "--vocab", ""], "no class names"),
        ([video, *whole, "--vocab", "twice.txt"], "twice.txt, entry 3: 'road' repeats entry 1"),
        ([video, *whole, "--vocab", "missing.txt"], "missing.txt does not exist"),
        ([video, *whole, "--vocab", "nope.csv"], "nope.csv does not exist"),
        ([video, *whole, "--vocab", "folder.txt"], "class list folder.txt is no file"),
        ([video, "--bundle", "flipped"], "decoder.onnx is not the file that was exported"),
        ([video, "--bundle", "nowhere"], "neither a folder nor built in"),
        ([video, *whole, "--out", "file/out.mp4"], "file"),
        ([video, *whole, "--out", "taken.mp4"], "taken.mp4 is not a file"),
        ([video, *whole, "--out", "/proc/out.mp4"], "/proc/out.mp4 cannot be written"),
        ([video, *whole, "--masks", "file"], "file"),
        ([video, *whole, "--precision", "fp64"], "onnxruntime does not compute in 'fp64'"),
        ([video, *whole, "--backend", "magic"], "backend 'magic' is not offered"),
    ]:
        done = run_program("ov2vss-run", *args, cwd=tmp_path)
        wrong_usage = "--precision" in args or "--backend" in args or "a.gif" in args
        check_refusal(done, message, tmp_path, before, 2 if wrong_usage else 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_folder(bundle: Path, video: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run_program("ov2vss-run", video, "--bundle", bundle, "--out", locked / "out.mp4")
    check_refusal(done, "cannot be written", locked, set())


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams_the_work_is_done(closed: str, tmp_path: Path) -> None:
    """As a daemon or ``pythonw`` runs it: no progress, no message, and no output file that becomes "standard error"."""
    HandMade().write(tmp_path / "b")
    write_video(tmp_path / "v.mp4", moving_frames(5, (64, 96)), audio=True)
    command = [str(SCRIPTS / "ov2vss-run"), "v.mp4", "--bundle", "b", "--jsonl", "a.jsonl", "--masks", "m"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=tmp_path, check=False, timeout=200)
    assert done.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(5))
    assert VideoReader(tmp_path / "v.ov2vss.mp4").frames == 5
    assert len(list((tmp_path / "m/v").iterdir())) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b", "m", "v.mp4", "v.ov2vss.mp4"]


@pytest.mark.parametrize(("where", "told"), [(">&-", "is closed"), (">/dev/full", "cannot be written (No space left")])
def test_json_that_cannot_be_printed_is_said(where: str, told: str, tmp_path: Path) -> None:
    HandMade().write(tmp_path / "b")
    write_video(tmp_path / "v.mp4", moving_frames(5, (64, 96)))
    command = [str(SCRIPTS / "ov2vss-run"), "v.mp4", "--bundle", "b", "--no-video", "--jsonl", "a.jsonl", "--json"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {where}', "sh", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: standard output {told}" in done.stderr
    assert "what was asked for in files is complete" in done.stderr
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 5


def test_full_disk(bundle: Path, tmp_path: Path) -> None:
    """A file that may not grow any further: what a full disk is to a program."""
    video, target = write_video(tmp_path / "in.mp4", moving_frames(60, (112, 168))), tmp_path / "out.mp4"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [SCRIPTS / "ov2vss-run", video, "--bundle", bundle, "--out", target]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=200, check=False)
    assert done.returncode == 1
    assert "out.part.mp4 cannot be written" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not target.exists()


def test_interrupt_leaves_a_playable_part(bundle: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", moving_frames(1500, (112, 168)))
    command = [str(SCRIPTS / "ov2vss-run"), "long.mp4", "--bundle", str(bundle)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell that runs the tests in the background ignores Ctrl-C for all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / "long.ov2vss.part.mp4"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size > 20_000):
        assert process.poll() is None, "ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "interrupted"
    assert not (tmp_path / "long.ov2vss.mp4").exists()
    with av.open(str(part)) as container:
        assert 0 < sum(1 for _ in container.decode(video=0)) < 1500


def test_wrong_usage_and_debug(bundle: Path, tmp_path: Path) -> None:
    assert run_program("ov2vss-run").returncode == 2
    assert run_program("ov2vss-run", "a.mp4", "--no-such-option").returncode == 2
    done = run_program("ov2vss-run", tmp_path / "missing.mp4", "--bundle", bundle, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("name", ["ov2vss-run", "ov2vss-train", "ov2vss-eval", "ov2vss-export"])
def test_help_and_version(name: str) -> None:
    for flag in ("-h", "--help"):
        done = run_program(name, flag)
        assert done.returncode == 0
        assert name in done.stdout  # the examples
    version = run_program(name, "--version")
    assert version.returncode == 0
    assert version.stdout.strip().startswith("ov2vss")


def test_export_refusals(trained, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    before = set(tmp_path.rglob("*"))
    ckpt = ["--ckpt", trained.folder]
    for args, message in [
        (["--ckpt", "nowhere"], "nowhere does not exist"),
        (["--ckpt", tmp_path / "taken"], "is not a training run"),
        ([*ckpt, "--vocab", "a; a"], "repeats entry 1"),
        ([*ckpt, "--out", "taken"], "taken already exists"),
        ([*ckpt, "--size", "big"], "HEIGHTxWIDTH"),
        ([*ckpt, "--out", "b", "--calibrate", "missing.mp4"], "missing.mp4 does not exist"),
    ]:
        done = run_program("ov2vss-export", *args, cwd=tmp_path)
        check_refusal(done, message, tmp_path, before, 2 if "--size" in args else 1)
