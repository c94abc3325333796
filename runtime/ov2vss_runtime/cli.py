"""``ov2vss-run``: bundle and video in, labelled video out."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from ov2vss_runtime.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, print_json, program
from ov2vss_runtime.errors import OV2VSSError, VideoError

if TYPE_CHECKING:
    from ov2vss_runtime.segmenter import Segmenter
    from ov2vss_runtime.vocabulary import Vocabulary

log = logging.getLogger("ov2vss.runtime")


@click.command(context_settings=CONTEXT)
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE...")
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option(
    "--vocab",
    default=None,
    metavar="FILE|WORDS",
    help='Words: a file, "road; car, automobile; person", or the name of a list in the bundle.',
)
@click.option(
    "--out", default=None, type=click.Path(path_type=Path), help="Overlaid mp4 [default: <source>.ov2vss.mp4]."
)
@click.option("--out-dir", default=None, type=click.Path(path_type=Path), help="Folder for the overlaid mp4s.")
@click.option("--masks", default=None, type=click.Path(path_type=Path), help="Also write DIR/<source>/<frame>.png.")
@click.option(
    "--backend", default="onnxruntime", show_default=True, help="onnxruntime[:cpu|:cuda|:tensorrt] or openvino."
)
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16, int8; on openvino fp32, bf16, int8.")
@click.option("--gap", default=None, type=click.IntRange(1, 10_000), help="Distance of references in frames.")
@click.option("--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: all].")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    sources: tuple[Path, ...],
    bundle: str,
    vocab: str | None,
    out: Path | None,
    out_dir: Path | None,
    masks: Path | None,
    backend: str,
    precision: str,
    gap: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Give every pixel of a video one of your words.

    \b
      ov2vss-run video.mp4
      ov2vss-run video.mp4 --vocab "road; car, automobile; person" --out result.mp4
      ov2vss-run video.mp4 --bundle my-bundle --masks masks/
      ov2vss-run a.mp4 b.mp4 --out-dir results/ --json
    """
    from ov2vss_runtime.segmenter import Segmenter

    if out is not None and (out_dir is not None or len(sources) > 1):
        raise OV2VSSError("--out names one file", "use --out-dir for several sources, and not both")
    targets = [out or (out_dir or Path()) / f"{source.stem}.ov2vss.mp4" for source in sources]
    if len(set(targets)) < len(targets):
        raise OV2VSSError("two sources would write the same output", "rename one of them")
    for target in targets:
        if target.exists() and not target.is_file():
            raise VideoError(f"{target} is not a file", "choose another --out")
    segmenter = Segmenter.load(bundle, backend, precision, threads)
    words = segmenter.words(vocab)
    reports = [run_one(segmenter, s, t, words, masks, gap) for s, t in zip(sources, targets, strict=True)]
    for report in reports:
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in report["stages_ms"].items())
        click.echo(f"{report['outputs'][0]}: {report['frames']} frames, {report['fps']:.1f} fps (ms a frame: {stages})")
    if as_json:
        frames, seconds = sum(r["frames"] for r in reports), sum(r["seconds"] for r in reports)
        whole = {"frames": frames, "seconds": seconds, "fps": frames / max(seconds, 1e-9)}
        whole["stages_ms"] = reports[0]["stages_ms"] if len(reports) == 1 else {}
        whole["outputs"] = [o for r in reports for o in r["outputs"]]
        print_json(whole | {"sources": reports})


def run_one(
    segmenter: Segmenter, source: Path, target: Path, words: Vocabulary, masks: Path | None, gap: int | None
) -> dict[str, Any]:
    """Segment one file; what :func:`main` reports about it."""
    from ov2vss_runtime.masks import MaskWriter
    from ov2vss_runtime.overlay import Overlay
    from ov2vss_runtime.video import VideoReader, VideoWriter

    began = time.perf_counter()
    reader = VideoReader(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"{target.parent} cannot be made ({error.strerror})", "choose another folder") from None
    stream = segmenter.stream(reader, words, gap)
    outputs = [str(target)]
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(target, reader))
        for notice in writer.notices:
            log.warning("%s", notice)
        overlay = Overlay(stream.names, (reader.height, reader.width))
        mask_writer = None
        if masks is not None:
            mask_writer = MaskWriter(masks / source.stem, len(stream.names))
            outputs.append(str(mask_writer.folder))
        bar = stack.enter_context(tqdm(total=reader.frames, desc=source.name, unit="frame", disable=None, leave=False))
        for frame in stream.stages.timed("decode", reader):
            result = stream.step(frame.rgb, frame.time)
            with stream.stages("overlay"):
                picture = overlay.draw(frame.rgb, result.labels)
            with stream.stages("encode"):
                writer.write(picture, frame.pts)
                if mask_writer is not None:
                    mask_writer.write(f"{result.index:06d}", result.labels)
            bar.update()
    seconds = time.perf_counter() - began
    return {
        "source": str(source),
        "frames": stream.index,
        "seconds": seconds,
        "fps": stream.index / seconds,
        "stages_ms": stream.stages.per_frame_ms(stream.index),
        "outputs": outputs,
    }
