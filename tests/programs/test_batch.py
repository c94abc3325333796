"""``ov2vss-batch``: chunks done anywhere give, byte for byte, what ``ov2vss-run`` writes."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import pytest

from ov2vss_runtime.batch.driver import work_off
from ov2vss_runtime.batch.executors import attempt
from ov2vss_runtime.batch.folder import BatchFolder
from ov2vss_runtime.batch.merging import merge_source
from ov2vss_runtime.batch.planning import Planner, bundle_sha256
from ov2vss_runtime.batch.records import Job, Labelling, Model, Outputs
from ov2vss_runtime.batch.work import Worker
from ov2vss_runtime.bundle.bundle import read_manifest
from tests.conftest import moving_frames, run_program, write_video

FRAMES = 31
EXACT = Outputs(video=False, masks=True, jsonl=True, npz=True)
"""Masks, JSON Lines with confidences, and logits."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", moving_frames(FRAMES), audio=True)


def jobs_of(
    video: Path,
    bundle: Path,
    chunks: int,
    outputs: Outputs = EXACT,
    backend: str = "onnxruntime",
    overlap: int | None = None,
    number: int = 0,
    **labelling: object,
) -> list[Job]:
    manifest = read_manifest(bundle)
    model = Model(
        bundle=str(bundle),
        sha256=bundle_sha256(str(bundle)),
        engine=backend,
        precision="fp32",
        threads=1,
        words=[tuple(entry) for entry in manifest.vocabulary.entries],
    )
    values = {"gap": manifest.gap, "smooth": False, "confidence": outputs.jsonl} | labelling
    memory = manifest.references * manifest.gap if overlap is None else overlap
    planner = Planner(model, Labelling(**values), outputs, memory, chunks, Fraction(25))
    return planner.jobs(number, video.stem, str(video))


def done_by(worker: Worker, jobs: list[Job], out: Path) -> BatchFolder:
    """A batch whose jobs one worker has done, and which is merged."""
    folder = BatchFolder(out)
    folder.write_plan(jobs, {})
    tally = work_off(
        folder, jobs, lambda queue: (attempt(worker, queue.popleft(), folder) for _ in iter(lambda: len(queue), 0))
    )
    assert not tally.failed
    merge_source(folder, jobs)
    return folder


def files(folder: Path) -> dict[str, str]:
    """sha256 of every output by its name."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".batch" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_programs_give_what_run_gives(bundle: Path, video: Path, tmp_path: Path) -> None:
    shown = ("--bundle", bundle, "--no-smooth", "--threads", "1")
    whole, out = tmp_path / "whole", tmp_path / "out"
    (tmp_path / "archive/sub").mkdir(parents=True)
    write_video(tmp_path / "archive/sub/other.mp4", moving_frames(9, seed=3))
    done = run_program(
        "ov2vss-run", video, *shown, "--masks", whole / "masks", "--jsonl", whole / "video.jsonl", "--out-dir", whole
    )
    assert done.returncode == 0, done.stderr
    args = (video, tmp_path / "archive", *shown, "--masks", "--jsonl", "--chunks", "4", "--out-dir", out, "--json")
    plan = run_program("ov2vss-batch", "plan", *args)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout.splitlines()[-1]) == {
        "jobs": 8, "files": 2, "frames": FRAMES + 9, "one_piece": {}, "failed": {}
    }  # fmt: skip
    unfinished = run_program("ov2vss-batch", "merge", out)
    assert unfinished.returncode == 1
    assert "4 of 4 jobs are missing" in unfinished.stderr

    done = run_program("ov2vss-batch", "work", out, "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["jobs"], summary["frames"], summary["failed"]) == (8, FRAMES + 9, [])
    merged = run_program("ov2vss-batch", "merge", out)
    assert merged.returncode == 0, merged.stderr
    told = json.loads(run_program("ov2vss-batch", "status", out, "--json").stdout.splitlines()[-1])
    assert (told["files"], told["merged"], told["jobs_done"], told["frames_done"]) == (2, 2, 8, FRAMES + 9)

    there = files(out)
    assert {name: digest for name, digest in there.items() if "other" not in name} == files(whole)
    assert len(files(whole)) == FRAMES + 2
    assert {"sub/other.jsonl", "sub/other.ov2vss.mp4", "masks/sub/other/000008.png"} < there.keys()
    assert sorted(path.name for path in (out / ".batch").iterdir()) == [
        "failed",
        "jobs.jsonl",
        "merged",
        "parts",
        "plan.json",
    ]
    assert not list((out / ".batch/parts").iterdir())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_chunks_give_the_same_bits(bundle: Path, video: Path, backend: str, tmp_path: Path) -> None:
    worker = Worker()
    done_by(worker, jobs_of(video, bundle, 1, backend=backend), tmp_path / "1")
    whole = files(tmp_path / "1")
    assert len(whole) == 2 * FRAMES + 1
    for chunks in (2, 4, 7):
        jobs = jobs_of(video, bundle, chunks, backend=backend)
        assert [job.span.overlap for job in jobs if job.span][-1] == 9
        done_by(worker, jobs, tmp_path / str(chunks))
        assert files(tmp_path / str(chunks)) == whole

    # One frame less of overlap is not enough: this test would see it.
    done_by(worker, jobs_of(video, bundle, 2, backend=backend, overlap=8), tmp_path / "less")
    assert files(tmp_path / "less") != whole


def test_every_second_frame_and_a_limit(bundle: Path, video: Path, tmp_path: Path) -> None:
    worker = Worker()
    for chunks in (1, 3):
        done_by(worker, jobs_of(video, bundle, chunks, every=2, frames=27, gap=2), tmp_path / str(chunks))
    assert len(files(tmp_path / "1")) == 2 * 27 + 1
    assert files(tmp_path / "3") == files(tmp_path / "1")


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ((), "--no-smooth"),
        (("--no-smooth", "--keyframes", "4"), "--keyframes"),
        (("--no-smooth", "--reset-on-cut"), "--reset-on-cut"),
        (("--no-smooth", "--top-classes", "3"), "--top-classes"),
        (("--no-smooth", "--drop-absent", "0.1"), "--drop-absent"),
        (("--no-smooth", "--distant", "reservoir"), "--distant"),
        (("--no-smooth", "--coco"), "--coco"),
        (("--no-smooth", "--cvat"), "--cvat"),
    ],
)
def test_what_needs_whole_files_is_refused_with_chunks(option: tuple[str, ...], named: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from ov2vss_runtime.batch.cli import main

    args = ["plan", "missing.mp4", "--chunks", "2", "--out-dir", str(tmp_path / "out"), *option]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 2
    assert named in done.output
    assert not list(tmp_path.iterdir())
