"""``ov2vss-batch``: an archive of videos cut into jobs, done anywhere, joined into what ``ov2vss-run`` writes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ov2vss_runtime.cli import main as run_command
from ov2vss_runtime.console import CONTEXT, Number, Place, one_line, print_json, print_line, program
from ov2vss_runtime.errors import OV2VSSError

LABELLING = ("gap", "distant", "every", "frames", "confidence", "unknown_below", "background", "synonyms",
             "drop_absent", "top_classes", "reset_on_cut", "smooth", "keyframes", "tiles")  # fmt: skip
MODEL = ("bundle", "clip_weights", "download", "dense", "vocab", "backend", "precision", "device")
DRAWN = ("alpha", "outlines", "legend", "side_by_side")
OUTPUTS = ("no_video", "mask_format", "npz_top", *DRAWN)
SHARED = (*MODEL, *LABELLING, *OUTPUTS, "rate")


def options_of_run(names: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of ``ov2vss-run`` as they stand there: they mean the same."""
    known = {option.name: option for option in run_command.params}

    def add(function: Callable[..., None]) -> Callable[..., None]:
        there = list(getattr(function, "__click_params__", []))
        function.__click_params__ = [known[name] for name in reversed(names)] + there  # type: ignore[attr-defined]
        return function

    return add


FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(context_settings=CONTEXT)
@click.version_option(version("ov2vss"), "--version", prog_name="ov2vss")
def main() -> None:
    """Label an archive of videos on many processes and machines, with the very labels of one.

    \b
      ov2vss-batch plan archive/ --chunks 8 --no-smooth --masks --jsonl --out-dir results/
      ov2vss-batch work results/ --workers 4       (on other machines: --shard 0/3, 1/3, 2/3)
      ov2vss-batch status results/
      ov2vss-batch merge results/
    """


@main.command(context_settings=CONTEXT)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out-dir", required=True, type=Place(), help="Folder of the batch and of its results.")
@click.option(
    "--chunks",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Cut every video into so many parts, where seeking in it can be trusted; above 1 it needs --no-smooth.",
)
@click.option("--masks", is_flag=True, help="Write indexed PNGs, masks/<source>/<frame>.png.")
@click.option("--jsonl", is_flag=True, help="Write <source>.jsonl: time and area of every class, an object a frame.")
@click.option("--npz", is_flag=True, help="Write logits or probabilities, npz/<source>/<frame>.npz.")
@click.option("--coco", is_flag=True, help="Write COCO annotations, <source>.coco.json.")
@click.option("--cvat", is_flag=True, help='Write CVAT\'s "Segmentation mask" layout, cvat/<source>/.')
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processor threads of a worker."
)
@options_of_run(SHARED)
@click.option("--json", "as_json", is_flag=True, help="Print the plan's figures as one JSON object on the last line.")
@program
def plan(
    sources: tuple[str, ...],
    out_dir: Path,
    chunks: int,
    masks: bool,
    jsonl: bool,
    npz: bool,
    coco: bool,
    cvat: bool,
    threads: int,
    rate: Fraction,
    as_json: bool,
    **given: Any,
) -> None:
    """Look through videos and write down the jobs.

    SOURCE is a video file, a folder (all videos in it and below; or one of images), a pattern, an address in a store
    (s3://..., gs://...; needs fsspec), or - for a list of those on standard input.
    """
    from ov2vss_runtime.batch.folder import BatchFolder
    from ov2vss_runtime.batch.planning import Planner, refuse_whole_file_options
    from ov2vss_runtime.batch.records import Job, Labelling, Outputs
    from ov2vss_runtime.batch.sources import expand
    from ov2vss_runtime.bundle.bundle import read_manifest
    from ov2vss_runtime.bundle.text import background_words

    written = {"masks": masks, "jsonl": jsonl, "npz": npz, "coco": coco, "cvat": cvat}
    if given["no_video"] and not any(written.values()):
        raise OV2VSSError(
            "nothing would be written",
            "add --masks, --jsonl, --npz, --coco or --cvat, or leave --no-video out",
            usage=True,
        )
    refuse_idle(
        {"npz_top": npz, "confidence": jsonl, "mask_format": masks} | dict.fromkeys(DRAWN, not given["no_video"])
    )
    folder, model = chosen_model(given, threads)
    manifest = read_manifest(folder)
    background = background_words(given["background"]) if given["background"] else ()
    values = {name: given[name] for name in LABELLING} | {"background": background}
    values["gap"] = manifest.gap if given["gap"] is None else given["gap"]
    if given["unknown_below"] is None:
        values["unknown_below"] = manifest.unknown_below
    labelling = Labelling(**values)
    shown = {name: given[name] for name in OUTPUTS if name != "no_video"}
    outputs = Outputs(video=not given["no_video"], **written, **shown)
    if chunks > 1:
        refuse_whole_file_options(labelling, outputs, manifest)
    overlap = manifest.references * labelling.gap if manifest.state is not None else 0
    planner = Planner(model, labelling, outputs, overlap, chunks, rate)
    jobs: list[Job] = []
    failed: dict[str, str] = {}
    for number, (name, location) in enumerate(expand(sources, sys.stdin)):
        try:
            jobs += planner.jobs(number, name, location)
        except (OV2VSSError, OSError) as error:
            failed[location] = one_line(error)
            click.echo(f"error: {failed[location]}", err=True)
    if not jobs:
        raise OV2VSSError("none of the sources can be read", "see above")
    refuse_places(jobs, out_dir)
    BatchFolder(out_dir).write_plan(jobs, failed)
    whole = {job.source.location: job.why_whole for job in jobs if job.why_whole}
    for location, why in whole.items():
        click.echo(f"{location} is one job: {why}", err=True)
    files, frames = len({job.source.location for job in jobs}), sum(job.frames or 0 for job in jobs)
    print_line(f"{out_dir}: {len(jobs)} jobs, {files} files, {frames} frames; next: ov2vss-batch work {out_dir}")
    if as_json:
        print_json({"jobs": len(jobs), "files": files, "frames": frames, "one_piece": whole, "failed": failed})
    if failed:
        raise OV2VSSError(f"{len(failed)} of {len(failed) + files} sources cannot be read", "the others are planned")


def refuse_idle(there: dict[str, bool]) -> None:
    """Refuse an option that was typed and that nothing would look at."""
    context = click.get_current_context()
    needs = {"npz_top": "--npz", "confidence": "--jsonl", "mask_format": "--masks"}
    for option in context.command.params:
        name = option.name or ""
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if typed and not there.get(name, True):
            need = needs.get(name, "a video")
            raise OV2VSSError(f"{option.opts[0]} is about {need}, and there is none", "leave one out", usage=True)


def chosen_model(given: dict[str, Any], threads: int) -> tuple[Path, Any]:
    """The folder of the bundle, and what the jobs say about it."""
    from ov2vss_runtime.batch.planning import bundle_sha256
    from ov2vss_runtime.batch.records import Model
    from ov2vss_runtime.bundle.bundle import builtin_bundles, find_bundle, read_manifest
    from ov2vss_runtime.bundle.clip_bundles import RECIPES, ClipOptions, is_clip, of_windows
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    bundle, clip = given["bundle"], None
    if is_clip(bundle):
        bundle = bundle if given["tiles"] is None else of_windows(bundle)
        clip = ClipOptions(given["clip_weights"] or "", given["download"], given["dense"] or RECIPES[0])
    elif given["clip_weights"] or given["download"] or given["dense"]:
        raise click.UsageError("--clip-weights, --download and --dense are about --bundle clip:MODEL/TAG")
    folder = find_bundle(bundle, clip)
    vocabulary = read_manifest(folder).vocabulary
    text = given["vocab"]
    if text is None or text in vocabulary.added:
        words = Vocabulary.parse(vocabulary.entries if text is None else vocabulary.added[text])
    else:
        words = Vocabulary.parse(text)
    place = bundle if bundle in builtin_bundles() and not Path(bundle).is_dir() else str(folder.absolute())
    model = Model(
        bundle=place,
        sha256=bundle_sha256(place),
        engine=given["backend"],
        precision=given["precision"],
        threads=threads,
        device=given["device"],
        words=words.entries,
    )
    return folder, model


def refuse_places(jobs: list[Any], out: Path) -> None:
    """Refuse to write over a source, before anything is written."""
    from ov2vss_runtime.batch.merging import places

    read = {
        Path(job.source.location).resolve()
        for job in jobs
        if job.source.identity is None or "://" not in job.source.location
    }
    for job in jobs:
        for place in places(job, out).values():
            if place.resolve() in read:
                raise OV2VSSError(f"{place} is a source", "choose another --out-dir", usage=True)


@main.command(context_settings=CONTEXT)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--workers", default=None, type=click.IntRange(1, 1024), help="Processes [default: cores / threads].")
@click.option("--shard", default=None, metavar="I/N", help="Do every N-th job from job I on; auto: as SLURM says.")
@click.option(
    "--ray",
    "address",
    default=None,
    metavar="ADDRESS",
    help="Run the jobs as tasks of a Ray cluster (host:port or auto; local starts one for this call).",
)
@click.option(
    "--gpus",
    default=None,
    type=Number(0, 16),
    help="With --ray: GPUs of a task, or a share of one [default: 1 for backends on a GPU].",
)
@click.option("--bundle", default=None, help="Where the plan's bundle is on the machines that work.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON object on the last line.")
@program
def work(
    folder: Path,
    workers: int | None,
    shard: str | None,
    address: str | None,
    gpus: float | None,
    bundle: str | None,
    as_json: bool,
) -> None:
    """Do the jobs of DIR that are not done. Call it as often, and on as many machines, as you like."""
    from ov2vss_runtime.batch.driver import work_off
    from ov2vss_runtime.batch.executors import Outcome, local, shard_of
    from ov2vss_runtime.batch.folder import BatchFolder
    from ov2vss_runtime.batch.records import Job
    from ov2vss_runtime.processors import available_threads

    if address is not None and workers is not None:
        raise OV2VSSError("--workers is about this machine, --ray about a cluster", "leave one out", usage=True)
    if gpus is not None and address is None:
        raise OV2VSSError("--gpus is about --ray", "add --ray ADDRESS, or leave it out", usage=True)
    batch, part = BatchFolder(folder), shard_of(shard)
    jobs = batch.jobs()
    crew = workers or max(1, available_threads() // jobs[0].model.threads)

    def execute(queue: deque[Job]) -> Iterator[Outcome]:
        if address is not None:
            from ov2vss_runtime.batch.ray_tasks import on_ray

            on_gpu = jobs[0].model.engine not in ("onnxruntime", "onnxruntime:cpu", "openvino")
            return on_ray(queue, folder, address, bundle, float(on_gpu) if gpus is None else gpus)
        return local(queue, folder, min(crew, max(1, len(queue))), bundle)

    tally = work_off(batch, jobs, execute, part)
    for failure in tally.failed:
        told = failure["error"]
        click.echo(f"error: {told if failure['source'] in told else failure['source'] + ': ' + told}", err=True)
    print_line(f"{folder}: {tally.jobs} jobs done, {tally.frames} frames, {tally.frames / tally.seconds:.1f} frames/s")
    if as_json:
        print_json(tally.summary())
    if tally.failed:
        raise OV2VSSError(f"{len(tally.failed)} jobs failed", "see above; a further call tries them again")


@main.command("status", context_settings=CONTEXT)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object on the last line.")
@program
def show_status(folder: Path, as_json: bool) -> None:
    """Say how far the archive is."""
    from ov2vss_runtime.batch.driver import status
    from ov2vss_runtime.batch.folder import BatchFolder
    from ov2vss_runtime.progress import duration

    facts = status(BatchFolder(folder))
    left = facts["worker_seconds_left"]
    print_line(
        f"{facts['jobs_done']} of {facts['jobs']} jobs, {facts['files_done']} of {facts['files']} files, "
        f"{facts['frames_done']} of {facts['frames']} frames, {facts['merged']} merged, {len(facts['failed'])} failed"
        + ("" if left is None else f", about {duration(left)} of one worker left")
    )
    for failure in facts["failed"]:
        click.echo(f"failed: {failure['source']}: {failure['error']}", err=True)
    for piece in facts["one_piece"]:
        click.echo(f"one piece: {piece['source']}: {piece['reason']}", err=True)
    if as_json:
        print_json(facts)


@main.command(context_settings=CONTEXT)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the outputs as one JSON object on the last line.")
@program
def merge(folder: Path, as_json: bool) -> None:
    """Join finished chunks into what ov2vss-run writes for each source."""
    from itertools import groupby

    from ov2vss_runtime.batch.folder import BatchFolder
    from ov2vss_runtime.batch.merging import NotFinished, merge_source

    batch = BatchFolder(folder)
    outputs: list[str] = []
    failed: list[dict[str, str]] = []
    unfinished: list[str] = []
    for location, jobs in groupby(batch.jobs(), lambda job: job.source.location):
        try:
            outputs += map(str, merge_source(batch, list(jobs)).values())
        except NotFinished as error:
            unfinished.append(location)
            click.echo(f"{location} is not finished: {error}", err=True)
        except (OV2VSSError, OSError) as error:
            failed.append({"source": location, "error": one_line(error)})
            click.echo(f"error: {location}: {one_line(error)}", err=True)
    print_line(f"{folder}: {len(outputs)} outputs")
    if as_json:
        print_json({"outputs": outputs, "unfinished": unfinished, "failed": failed})
    if unfinished or failed:
        raise OV2VSSError(
            f"{len(unfinished)} sources are not finished, {len(failed)} failed", f"run: ov2vss-batch work {folder}"
        )
