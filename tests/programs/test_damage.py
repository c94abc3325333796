"""Damaged files and left-over outputs through the program: the work is done, and what is not right is said."""

import json
from pathlib import Path

import av
import cv2

from ov2vss_runtime.video.file import VideoReader
from tests.conftest import moving_frames, run_program, write_video


def test_a_damaged_file_is_processed_and_what_is_missing_is_counted(bundle: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", moving_frames(30, (64, 96)), audio=True)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos]
    data = bytearray(path.read_bytes())
    for at, size in places[12:14]:
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    readable = len(list(VideoReader(path)))
    assert 20 < readable < 30
    args = ("--bundle", bundle, "--jsonl", "a.jsonl", "--out", "out.mp4", "--json")
    done = run_program("ov2vss-run", "v.mp4", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])["sources"][0]
    assert (report["frames"], report["missing"]) == (readable, 30 - readable)
    assert f"{30 - readable} of 30 frames are missing" in done.stderr
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == readable
    assert VideoReader(tmp_path / "out.mp4").frames == readable


def test_masks_of_an_earlier_run_are_noticed(bundle: Path, tmp_path: Path) -> None:
    """Also: two images of one name in different folders give two masks."""
    for index, name in enumerate(("a/1.png", "b/1.png", "b/2.png")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), moving_frames(3, (64, 96))[index])
    args = ("--bundle", bundle, "--no-video", "--masks", "m", "--npz", "n")
    done = run_program("ov2vss-run", "in/*/*.png", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for folder, suffix in (("m", "png"), ("n", "npz")):
        names = sorted(p.relative_to(tmp_path / folder).as_posix() for p in (tmp_path / folder).rglob(f"*.{suffix}"))
        assert names == [f"in/a/1.{suffix}", f"in/b/1.{suffix}", f"in/b/2.{suffix}"]
    assert "earlier run" not in done.stderr
    (tmp_path / "in/b/2.png").unlink()
    done = run_program("ov2vss-run", "in/*/*.png", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "m/in still holds 1 files of an earlier run that this one did not write, such as b/2.png" in done.stderr
    assert "n/in still holds 1 files of an earlier run that this one did not write, such as b/2.npz" in done.stderr
