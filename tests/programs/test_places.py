"""No output is a source, another output, or takes the place of a device, a pipe or a link; two runs never share one."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.places import held
from tests.conftest import moving_frames, run_program, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "x.mp4", moving_frames(4, (112, 168)))


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["x.mp4", "--jsonl", "x.mp4"], 2, "x.mp4 is a source"),
        (["x.mp4", "--out", "link.mp4"], 2, "x.mp4 is a source"),
        (["x.mp4", "--no-video", "--coco", "./x.mp4"], 2, "x.mp4 is a source"),
        (["x.mp4", "x.ov2vss.mp4"], 2, "x.ov2vss.mp4 is a source"),
        (["pictures", "--no-video", "--masks", "."], 2, "pictures is a source"),
        (["x.mp4", "--no-video", "--masks", "x.mp4"], 2, "x.mp4 is a source"),
        (["x.mp4", "--out", "a.mp4", "--jsonl", "a.mp4"], 2, "named for two outputs"),
        (["x.mp4", "sub/x.mp4", "--out-dir", "o"], 2, "named for two outputs"),
        (["x.mp4", "--no-video", "--jsonl", "/dev/null"], 1, "/dev/null is not a file"),
        (["x.mp4", "--no-video", "--jsonl", "/dev/stdout"], 1, "is not a file"),
        (["x.mp4", "--no-video", "--jsonl", "pipe"], 1, "pipe is not a file"),
    ],
)
def test_nothing_is_replaced(
    args: list[str], code: int, message: str, bundle: Path, clip: Path, tmp_path: Path
) -> None:
    for name in ("x.mp4", "x.ov2vss.mp4"):
        shutil.copy(clip, tmp_path / name)
    (tmp_path / "sub").mkdir()
    shutil.copy(clip, tmp_path / "sub/x.mp4")
    (tmp_path / "link.mp4").symlink_to("x.mp4")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pictures").mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / "pictures/000000.png"), moving_frames(1, (112, 168))[0])
    before = {p: (p.lstat().st_mode, p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")}
    null = Path("/dev/null").lstat()
    done = run_program("ov2vss-run", *args, "--bundle", bundle, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert message in done.stderr
    after = {p: (p.lstat().st_mode, p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")}
    assert after == before
    assert (Path("/dev/null").lstat().st_mode, Path("/dev/null").lstat().st_ino) == (null.st_mode, null.st_ino)


def test_a_link_stays_a_link(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "areas.jsonl").symlink_to("real.jsonl")
    args = ("--bundle", bundle, "--no-video", "--jsonl", "areas.jsonl")
    assert run_program("ov2vss-run", clip, *args, cwd=tmp_path).returncode == 0
    assert (tmp_path / "areas.jsonl").is_symlink()
    assert len((tmp_path / "real.jsonl").read_text().splitlines()) == 4


def test_a_second_run_at_the_same_place_is_refused(bundle: Path, clip: Path, tmp_path: Path) -> None:
    part = tmp_path / "out.part.mp4"
    args = ("--bundle", bundle, "--out", tmp_path / "out.mp4")
    with held(part, tmp_path / "out.mp4"):
        part.write_bytes(b"what another run has written")
        done = run_program("ov2vss-run", clip, *args)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "out.mp4 is being written by another run" in done.stderr
        assert part.read_bytes() == b"what another run has written"
    assert run_program("ov2vss-run", clip, *args).returncode == 0  # what a killed run left is not in the way
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with held(tmp_path, tmp_path), pytest.raises(VideoError, match="another run"), held(tmp_path, tmp_path):
        pass


def test_one_bad_file_among_several(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    shutil.copy(clip, tmp_path / "y.mp4")
    done = run_program(
        "ov2vss-run",
        clip,
        "bad.mp4",
        "missing.mp4",
        "y.mp4",
        "--bundle",
        bundle,
        "--out-dir",
        "o",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["x.ov2vss.mp4", "y.ov2vss.mp4"]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["frames"] == 8
    assert [entry["source"] for entry in report["failed"]] == ["bad.mp4", "missing.mp4"]
    assert "does not exist" in report["failed"][1]["error"]
    assert done.stderr.splitlines()[-1].startswith("error: 2 of 4 sources failed: bad.mp4, missing.mp4")
