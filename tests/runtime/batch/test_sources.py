"""What a user names, and what is found behind it."""

import io
from fractions import Fraction
from pathlib import Path

import fsspec
import pytest

from ov2vss_runtime.batch.planning import Planner
from ov2vss_runtime.batch.records import Labelling, Outputs
from ov2vss_runtime.batch.sources import expand, identity
from ov2vss_runtime.batch.work import a_worker
from ov2vss_runtime.errors import OV2VSSError
from tests.conftest import moving_frames, write_video
from tests.hand_made import HandMade
from tests.runtime.batch.test_exactly_once import finish, plan_of


def test_folders_patterns_lists_and_addresses(tmp_path: Path) -> None:
    names = ("a.mp4", "in/b.MKV", "in/deep/c.avi", "in/notes.txt", "pictures/1.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    both = [("b", str(tmp_path / "in/b.MKV")), ("deep/c", str(tmp_path / "in/deep/c.avi"))]
    assert expand([str(tmp_path / "in")]) == both
    assert expand([str(tmp_path / "*.mp4")]) == [("a", str(tmp_path / "a.mp4"))]
    assert expand([f"file://{tmp_path}/a.mp4"]) == [("a", str(tmp_path / "a.mp4"))]
    assert expand(["-"], io.StringIO(f"{tmp_path}/a.mp4\n\n{tmp_path}/in\n")) == [("a", str(tmp_path / "a.mp4")), *both]
    assert expand([str(tmp_path / "pictures")]) == [("pictures", str(tmp_path / "pictures"))]
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.mp4").write_bytes(b"y")
    with pytest.raises(OV2VSSError, match="would both be written as a"):
        expand([str(tmp_path / "a.mp4"), str(tmp_path / "more/a.mp4")])
    for wrong in ("missing.mp4", "missing*.mp4", "more/../empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(OV2VSSError):
            expand([str(tmp_path / wrong)])


def test_a_store_gives_what_files_give(tmp_path: Path) -> None:
    """fsspec's store in memory stands for any other."""
    bundle = HandMade(distant=True).write(tmp_path / "made")
    video = write_video(tmp_path / "video.mp4", moving_frames(20))
    whole = plan_of(bundle, 1, tmp_path / "whole", video, outputs=Outputs(masks=True, jsonl=True))
    store = fsspec.filesystem("memory")
    store.pipe("/archive/day/video.mp4", video.read_bytes())
    store.pipe("/archive/readme.txt", b"no video")
    assert expand(["memory://archive"]) == [("day/video", "memory:///archive/day/video.mp4")]
    assert expand(["memory://archive/day/*.mp4"]) == [("video", "memory:///archive/day/video.mp4")]
    with pytest.raises(OV2VSSError, match="holds no video"):
        expand(["memory://nothing"])
    assert identity("memory:///archive/day/video.mp4").head == identity(str(video)).head

    model = whole.jobs()[0].model
    planner = Planner(model, Labelling(gap=1, smooth=False), Outputs(masks=True, jsonl=True), 0, 3, Fraction(25))
    jobs = planner.jobs(0, "video", "memory:///archive/day/video.mp4")
    assert len(jobs) == 3
    folder = type(whole)(tmp_path / "out")
    folder.write_plan(jobs, {})
    with a_worker() as worker:
        assert finish(folder, worker) == finish(whole)
        (brought,) = worker._brought
        assert [path.name for path in Path(brought.name).iterdir()] == ["video.mp4"]
    assert not Path(brought.name).exists()
