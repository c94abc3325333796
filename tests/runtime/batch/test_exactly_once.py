"""Parts of a batch: unique, complete or not there, done once, whatever is killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from ov2vss_runtime.batch.driver import missing, status, work_off
from ov2vss_runtime.batch.executors import Outcome, attempt, local, shard_of
from ov2vss_runtime.batch.folder import LONG_AGO, BatchFolder
from ov2vss_runtime.batch.merging import merge_source
from ov2vss_runtime.batch.planning import Planner, bundle_sha256
from ov2vss_runtime.batch.records import Done, Job, Labelling, Model, Outputs
from ov2vss_runtime.batch.work import Worker
from ov2vss_runtime.errors import OV2VSSError
from tests.conftest import moving_frames, write_video
from tests.hand_made import HandMade

FRAMES = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return HandMade(distant=True).write(tmp_path_factory.mktemp("bundle") / "made")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", moving_frames(FRAMES))


def plan_of(bundle: Path, chunks: int, out: Path, *videos: Path, outputs: Outputs | None = None) -> BatchFolder:
    words = (("road",), ("sky",), ("tree",))
    digest = bundle_sha256(str(bundle))
    model = Model(bundle=str(bundle), sha256=digest, engine="onnxruntime", precision="fp32", threads=1, words=words)
    shown = outputs or Outputs(video=False, masks=True, jsonl=True)
    planner = Planner(model, Labelling(gap=1, smooth=False), shown, 0, chunks, Fraction(25))
    folder = BatchFolder(out)
    folder.write_plan([job for n, video in enumerate(videos) for job in planner.jobs(n, video.stem, str(video))], {})
    return folder


def here(folder: BatchFolder, worker: Worker):
    """An executor that does the jobs in this process."""

    def execute(queue) -> Iterator[Outcome]:
        while queue:
            yield attempt(worker, queue.popleft(), folder)

    return execute


def finish(folder: BatchFolder, worker: Worker | None = None) -> dict[str, bytes]:
    """Do what is missing, merge, and give all outputs."""
    work_off(folder, folder.jobs(), here(folder, worker or Worker()))
    sources = {job.source.name for job in folder.jobs()}
    for name in sources:
        merge_source(folder, [job for job in folder.jobs() if job.source.name == name])
    assert not list(folder.parts.iterdir())
    return outputs_of(folder)


def outputs_of(folder: BatchFolder) -> dict[str, bytes]:
    found = (p for p in folder.out.rglob("*") if p.is_file() and ".batch" not in p.parts)
    return {str(p.relative_to(folder.out)): p.read_bytes() for p in found}


def test_the_second_finisher_drops_its_own(bundle: Path, video: Path, tmp_path: Path) -> None:
    folder = plan_of(bundle, 1, tmp_path / "out", video)
    said = []
    for text in ("first", "second"):
        with folder.new_part("00000-whole") as part:
            (part / "lines.jsonl").write_text(text)
            said.append(folder.publish(part, Done(job="00000-whole", frames=1, seconds=0, user_seconds=0)))
    assert said == [True, False]
    assert [p.name for p in folder.parts.iterdir()] == ["00000-whole"]
    assert (folder.part("00000-whole") / "lines.jsonl").read_text() == "first"


def test_parts_of_the_dead_are_swept_and_those_of_the_living_are_not(bundle: Path, video: Path, tmp_path: Path) -> None:
    folder = plan_of(bundle, 1, tmp_path / "out", video)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = os.uname().nodename
    for name in (
        f"a.{host}.{ended.pid}.x.part",
        f"b.{host}.{os.getpid()}.x.part",
        "c.elsewhere.1.x.part",
        "d.elsewhere.1.x.part",
    ):
        (folder.parts / name).mkdir()
    os.utime(folder.parts / "d.elsewhere.1.x.part", (0, time.time() - LONG_AGO - 60))
    with folder.new_part("e") as part:
        os.utime(part, (0, time.time() - LONG_AGO - 60))  # old, but locked
        assert folder.sweep() == 2
        assert sorted(p.name.split(".")[0] for p in folder.parts.iterdir()) == ["b", "c", "e"]


def test_a_rerun_does_only_what_is_missing(bundle: Path, video: Path, tmp_path: Path) -> None:
    folder = plan_of(bundle, 4, tmp_path / "out", video)
    jobs, worker = folder.jobs(), Worker()
    done = [work_off(folder, jobs, here(folder, worker), (index, 3)).jobs for index in range(3)]
    assert done == [2, 1, 1]
    assert status(folder)["files_done"] == 1
    before = {job.id: folder.part(job.id).stat().st_mtime_ns for job in jobs}
    shutil.rmtree(folder.part(jobs[2].id))
    assert [job.id for job in missing(folder, jobs)] == [jobs[2].id]
    tally = work_off(folder, jobs, here(folder, worker))
    assert (tally.jobs, tally.frames) == (1, 10)
    assert [job.id for job in jobs if folder.part(job.id).stat().st_mtime_ns != before[job.id]] == [jobs[2].id]
    first = finish(folder)
    assert len(first) == FRAMES + 1
    assert missing(folder, jobs) == []
    (folder.out / "video.jsonl").unlink()  # an output that somebody removes is made again
    assert len(missing(folder, jobs)) == 4
    assert finish(folder) == first


def test_a_changed_source_is_named_and_stops_nobody(bundle: Path, tmp_path: Path) -> None:
    one, two = (write_video(tmp_path / f"{n}.mp4", moving_frames(6, seed=n)) for n in (1, 2))
    folder = plan_of(bundle, 2, tmp_path / "out", one, two)
    write_video(one, moving_frames(6, seed=9))
    tally = work_off(folder, folder.jobs(), here(folder, Worker()))
    assert tally.jobs == 2
    assert [f["source"] for f in tally.failed] == [str(one)] * 2
    assert "has changed since it was planned" in tally.failed[0]["error"]
    told = status(folder)
    assert (told["files"], told["files_done"], len(told["failed"])) == (2, 1, 2)
    with pytest.raises(OV2VSSError, match="has a plan already"):
        plan_of(bundle, 1, tmp_path / "out", two)


def test_another_bundle_is_refused(bundle: Path, video: Path, tmp_path: Path) -> None:
    folder = plan_of(bundle, 1, tmp_path / "out", video)
    other = HandMade(distant=False).write(tmp_path / "made")
    outcome = attempt(Worker(str(other)), folder.jobs()[0], folder)
    assert outcome.done is None
    assert "is not the one of the plan" in outcome.error
    assert not list(folder.parts.iterdir())


def test_a_damaged_chunk_makes_its_file_one_job(bundle: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", moving_frames(FRAMES))
    with av.open(str(path)) as container:
        at, size = sorted((p.pos, p.size) for p in container.demux(video=0) if p.size)[25]
    data = bytearray(path.read_bytes())
    data[at + 5 : at + size] = bytes(255 - byte for byte in data[at + 5 : at + size])
    path.write_bytes(data)
    whole = finish(plan_of(bundle, 1, tmp_path / "whole", path))
    folder = plan_of(bundle, 4, tmp_path / "chunks", path)
    tally = work_off(folder, folder.jobs(), here(folder, Worker()))
    assert (tally.fallbacks, tally.failed) == (1, [])
    assert "decode" in status(folder)["one_piece"][0]["reason"]
    assert finish(folder) == whole
    assert 0 < len(whole) - 1 < FRAMES + 1


def test_a_worker_that_dies_is_replaced(bundle: Path, video: Path, tmp_path: Path) -> None:
    folder = plan_of(bundle, 4, tmp_path / "out", video)
    whole = finish(plan_of(bundle, 1, tmp_path / "whole", video))

    def execute(queue) -> Iterator[Outcome]:
        for number, outcome in enumerate(local(queue, folder.out, 1)):
            if number == 0:
                for child in children(os.getpid()):
                    if b"local_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(child, signal.SIGKILL)
            yield outcome

    tally = work_off(folder, folder.jobs(), execute)
    assert (tally.jobs, tally.failed) == (4, [])
    assert finish(folder) == whole


def children(process: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def check_what_is_visible(folder: BatchFolder, jobs: dict[str, Job]) -> int:
    """Every part without a unique name is complete; returns how many there are."""
    parts = [p for p in folder.parts.iterdir() if not p.name.endswith(".part")]
    for part in parts:
        frames = jobs[part.name].frames
        assert json.loads((part / "done.json").read_text())["frames"] == frames
        assert len(list((part / "masks").glob("*.png"))) == frames
        assert len((part / "lines.jsonl").read_text().splitlines()) == frames
    return len(parts)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_show_no_half_result(kills: int, bundle: Path, tmp_path: Path) -> None:
    """Workers and drivers in turn, at random moments of their work."""
    video = write_video(tmp_path / "long.mp4", moving_frames(60 * kills))
    whole = finish(plan_of(bundle, 1, tmp_path / "whole", video))
    folder = plan_of(bundle, 4 * kills, tmp_path / "out", video)
    jobs = {job.id: job for job in folder.jobs()}
    rng = random.Random(kills)
    command = [sys.executable, "-c", "from ov2vss_runtime.start import batch; batch()", "work", str(folder.out)]
    left: set[int] = set()
    for number in range(kills):
        driver = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 120
            while not list(folder.parts.glob("*.part")) and driver.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.4))
            workers = children(driver.pid)
            left |= {driver.pid, *workers}
            victim = rng.choice(workers) if workers and number % 2 == 0 else driver.pid
            os.kill(victim, signal.SIGKILL)
            check_what_is_visible(folder, jobs)
        finally:
            if number % 2 == 0:
                time.sleep(rng.uniform(0, 0.2))
            driver.kill()
            driver.wait()
    until = time.monotonic() + 60  # workers without a driver end after their job
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in left) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in left if Path(f"/proc/{pid}/cmdline").exists()]
    check_what_is_visible(folder, jobs)
    assert finish(folder) == whole
    assert len(whole) == 60 * kills + 1


def test_shards_from_schedulers() -> None:
    assert shard_of(None) == (0, 1)
    assert shard_of("3/7") == (3, 7)
    array = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert shard_of("auto", array | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) == (2, 4)
    assert shard_of("auto/6", {"JOB_COMPLETION_INDEX": "5"}) == (5, 6)
    for text in ("7/7", "a/2", "1", "-1/2", "auto"):
        with pytest.raises(OV2VSSError):
            shard_of(text, {})
