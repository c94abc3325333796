"""``ov2vss-run``: bundle and video in, labelled video out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.bundle.clip_bundles import RECIPES, ClipOptions, is_clip, of_windows
from ov2vss_runtime.console import CONTEXT, Number, Place, one_line, print_json, print_line, program
from ov2vss_runtime.errors import OV2VSSError, VideoError

if TYPE_CHECKING:
    from ov2vss_runtime.outputs.targets import Targets
    from ov2vss_runtime.stream.keyframes import KeyFrames
    from ov2vss_runtime.video.source import Source


def _rate(_context: click.Context, _option: click.Parameter, value: str) -> Fraction:
    try:
        rate = Fraction(value)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise click.BadParameter(f"{value} is no rate; write frames a second like 25 or 30000/1001")
    return rate


def _keyframes(_context: click.Context, _option: click.Parameter, value: str) -> KeyFrames:
    from ov2vss_runtime.stream.keyframes import parse_keyframes

    try:
        return parse_keyframes(value)
    except OV2VSSError as error:
        raise click.BadParameter(str(error)) from None


def _share_or_auto(_context: click.Context, _option: click.Parameter, value: str) -> float | None:
    if value == "auto":
        return None
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value} is no probability; write a number from 0 to 1, or auto")
    return share


def _list_backends(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from ov2vss_runtime.engines.backends import BACKENDS, status

    for name in BACKENDS:
        click.echo(f"{name:<22}{status(name)}")
    context.exit()


FILE = Place()


@click.command(context_settings=CONTEXT)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--bundle",
    default=DEFAULT_BUNDLE,
    show_default=True,
    help="Bundle folder, name of a built-in one, or clip:MODEL/TAG[@HxW]: made once and kept.",
)
@click.option("--clip-weights", default=None, metavar="FILE", help="With --bundle clip:...: its weights, or 'random'.")
@click.option("--download", is_flag=True, help="With --bundle clip:...: allow weights to be fetched.")
@click.option(
    "--dense",
    default=None,
    type=click.Choice(RECIPES),
    help="With --bundle clip:...: how features of places are taken from CLIP [default: neighbour].",
)
@click.option(
    "--tiles",
    default=None,
    metavar="SHORT[:STRIDE]",
    help="Of training-free bundles: scale frames to this shorter side, look at them in windows of the bundle's size "
    "and average; 336:112 is what published figures are made with. Slower, finer.",
)
@click.option(
    "--vocab",
    default=None,
    metavar="FILE|WORDS",
    help='Words: a file, "road; car, automobile; person", or the name of a list in the bundle.',
)
@click.option("--out", default=None, type=FILE, help="Overlaid mp4 [default: <source>.ov2vss.mp4].")
@click.option("--out-dir", default=None, type=FILE, help="Folder for the overlaid mp4s.")
@click.option("--no-video", is_flag=True, help="No overlaid mp4.")
@click.option("--masks", default=None, type=FILE, help="Write indexed PNGs, DIR/<source>/<frame>.png.")
@click.option(
    "--mask-format",
    default="palette",
    show_default=True,
    type=click.Choice(["palette", "gray"]),
    help="Of --masks: ids with a palette of colours, or as grey values.",
)
@click.option("--jsonl", default=None, type=FILE, help="Write time and area of every class, one JSON object a frame.")
@click.option("--npz", default=None, type=FILE, help="Write logits or probabilities, DIR/<source>/<frame>.npz.")
@click.option("--coco", default=None, type=FILE, help="Write COCO annotations with run-length masks.")
@click.option("--cvat", default=None, type=FILE, help='Write CVAT\'s "Segmentation mask" layout, DIR/<source>/.')
@click.option(
    "--npz-top",
    default=0,
    type=click.IntRange(0, 100),
    help="Only the K best classes of each position [0: all logits].",
)
@click.option("--alpha", default=0.5, show_default=True, type=Number(0, 1), help="Strength of the colours.")
@click.option("--outlines", is_flag=True, help="Draw the borders between labels.")
@click.option("--legend/--no-legend", default=True, show_default=True, help="List the words across the bottom.")
@click.option("--side-by-side", is_flag=True, help="The video on the left, labelled on the right.")
@click.option(
    "--unknown-below",
    default="0",
    callback=_share_or_auto,
    metavar="P|auto",
    help="Pixels less sure than this probability are unknown; auto: as the bundle says [0: none].",
)
@click.option(
    "--background",
    default=None,
    metavar="FILE|stuff",
    help="Words that take part but name nothing: pixels that they win are unknown. stuff: a list that is installed.",
)
@click.option(
    "--synonyms",
    default=None,
    type=click.Choice(["average", "max"]),
    help="Average the synonyms of a class, or let the best of them count [default: as the bundle says].",
)
@click.option(
    "--drop-absent",
    default=0.0,
    type=Number(0, 1, max_open=True),
    metavar="P",
    help="Leave out words that reach this probability nowhere in a frame; looked at again at cuts and now and then.",
)
@click.option("--confidence", is_flag=True, help="Add each class's mean confidence to --jsonl.")
@click.option(
    "--top-classes",
    default=0,
    type=click.IntRange(0),
    metavar="K",
    help="Of a large vocabulary decode only the K likeliest words of a shot [0: all].",
)
@click.option(
    "--every", default=1, show_default=True, type=click.IntRange(1), help="Run the network on every K-th frame."
)
@click.option(
    "--smooth/--no-smooth",
    default=None,
    help="Blend every frame with the one before it, moved along the optical flow [default: yes, except on engines that "
    "make label maps on a GPU].",
)
@click.option(
    "--keyframes",
    default="1",
    show_default=True,
    metavar="K|auto",
    callback=_keyframes,
    help="Run the network on every K-th frame, or where the motion asks for it, and move its labels between.",
)
@click.option("--reset-on-cut", is_flag=True, help="Start anew where a new shot begins.")
@click.option("--gap", default=None, type=click.IntRange(1, 10_000), help="Distance of references in frames.")
@click.option(
    "--distant",
    default=None,
    type=click.Choice(["farthest", "first", "reservoir"]),
    help="Distant frame [default: farthest for files, first for live sources].",
)
@click.option("--frames", default=None, type=click.IntRange(1), help="End after so many frames.")
@click.option(
    "--realtime",
    default=None,
    type=click.Choice(["drop", "wait", "async"]),
    help="Too slow for the source: drop the oldest frame, let the source wait, or label the newest frame in the "
    "background and move its labels to every frame [default: drop for live sources]. With drop and async a file is "
    "played by the clock.",
)
@click.option("--queue", default=4, show_default=True, type=click.IntRange(1, 1000), help="Frames that may wait.")
@click.option(
    "--reconnect",
    default=10.0,
    show_default=True,
    type=Number(0),
    metavar="SECONDS",
    help="Try so long to get a lost network stream back.",
)
@click.option("--raw", default=None, metavar="HxW", help="Size of raw frames on standard input (SOURCE is -).")
@click.option(
    "--raw-format", default="rgb24", show_default=True, type=click.Choice(["rgb24", "bgr24", "gray8"]), help="Of --raw."
)
@click.option(
    "--rate", default="25", show_default=True, callback=_rate, help="Frames a second of images, raw frames, cameras."
)
@click.option(
    "--backend",
    default="onnxruntime",
    show_default=True,
    help="onnxruntime[:cpu|:cuda|:tensorrt], openvino, tensorrt or tensorrt-rtx.",
)
@click.option(
    "--list-backends",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_backends,
    help="Say what would run here, and why not.",
)
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16, int8; on openvino fp32, bf16, int8.")
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option(
    "--plans",
    default=None,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of TensorRT plans that you trust: they are code [default: your cache folder].",
)
@click.option(
    "--device", default=0, show_default=True, type=click.IntRange(0), help="Number of the GPU, as CUDA counts them."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    sources: tuple[str, ...],
    bundle: str,
    clip_weights: str | None,
    download: bool,
    dense: str | None,
    tiles: str | None,
    vocab: str | None,
    out: Path | None,
    out_dir: Path | None,
    no_video: bool,
    masks: Path | None,
    mask_format: Any,
    jsonl: Path | None,
    npz: Path | None,
    coco: Path | None,
    cvat: Path | None,
    npz_top: int,
    alpha: float,
    outlines: bool,
    legend: bool,
    side_by_side: bool,
    unknown_below: float | None,
    background: str | None,
    synonyms: Any,
    drop_absent: float,
    confidence: bool,
    top_classes: int,
    every: int,
    smooth: bool | None,
    keyframes: KeyFrames,
    reset_on_cut: bool,
    gap: int | None,
    distant: Any,
    frames: int | None,
    realtime: Any,
    queue: int,
    reconnect: float,
    raw: str | None,
    raw_format: str,
    rate: Fraction,
    backend: str,
    precision: str,
    threads: int | None,
    plans: Path | None,
    device: int,
    as_json: bool,
) -> None:
    """Give every pixel of a video one of your words.

    SOURCE is a video file, a folder or pattern of images, the index of a camera (0), the URL of a stream
    (rtsp://, http://, ...), or - for raw frames on standard input.

    \b
      ov2vss-run video.mp4
      ov2vss-run video.mp4 --vocab "road; car, automobile; person" --out result.mp4
      ov2vss-run video.mp4 --bundle my-bundle --masks masks/ --jsonl areas.jsonl
      ov2vss-run video.mp4 --bundle clip:ViT-B-16/openai --vocab "camel; sand; fence; sky" --download
      ov2vss-run a.mp4 b.mp4 --out-dir results/ --json
      ov2vss-run rtsp://camera/stream --no-video --jsonl live.jsonl --reset-on-cut
      ffmpeg -i in.mkv -f rawvideo -pix_fmt rgb24 - | ov2vss-run - --raw 720x1280 --out out.mp4
    """
    from ov2vss_runtime.bundle.text import background_words
    from ov2vss_runtime.outputs.overlay import OverlayStyle
    from ov2vss_runtime.outputs.places import check_places, unlinked
    from ov2vss_runtime.outputs.targets import Targets
    from ov2vss_runtime.stream.preprocess import parse_size
    from ov2vss_runtime.stream.segmenter import Segmenter
    from ov2vss_runtime.stream.side_by_side import Failure, run_all
    from ov2vss_runtime.stream.stream import StreamOptions
    from ov2vss_runtime.stream.tiles import parse_tiles
    from ov2vss_runtime.video.open_source import file_aspect, open_source
    from ov2vss_runtime.video.source import SourceOptions

    if out is not None and (out_dir is not None or len(sources) > 1):
        raise OV2VSSError("--out names one file", "use --out-dir for several sources, and not both", usage=True)
    if no_video and (out is not None or out_dir is not None):
        raise OV2VSSError("--no-video and --out contradict each other", "leave one out", usage=True)
    if no_video and not any((masks, jsonl, npz, coco, cvat)):
        raise OV2VSSError(
            "nothing would be written",
            "add --masks, --jsonl, --npz, --coco or --cvat, or leave --no-video out",
            usage=True,
        )
    if (jsonl is not None or coco is not None) and len(sources) > 1:
        raise OV2VSSError(
            f"--{'coco' if jsonl is None else 'jsonl'} names one file", "run the sources one by one", usage=True
        )
    if npz_top and npz is None:
        raise OV2VSSError("--npz-top is about --npz", "add --npz DIR", usage=True)
    if confidence and jsonl is None:
        raise OV2VSSError("--confidence is about --jsonl", "add --jsonl FILE", usage=True)
    if (raw is not None) != ("-" in sources):
        raise OV2VSSError(
            "--raw and the source - need each other", "give raw frames on standard input, and their size", usage=True
        )
    _refuse_idle_options(
        {"--masks": masks is not None, "--raw": raw is not None, "a video": not no_video},
        {"mask_format": "--masks", "raw_format": "--raw"}
        | dict.fromkeys(("alpha", "outlines", "legend", "side_by_side"), "a video"),
    )
    style = OverlayStyle(alpha, outlines, legend, side_by_side)
    stream_options = StreamOptions(
        confidence,
        npz is not None,
        unknown_below or 0.0,
        reset_on_cut,
        top_classes,
        smooth=smooth,
        keyframes=keyframes,
        synonyms=synonyms,
        background=background_words(background) if background else (),
        drop_absent=drop_absent,
        tiles=parse_tiles(tiles) if tiles is not None else None,
    )
    source_options = SourceOptions(rate, parse_size(raw) if raw is not None else None, raw_format, reconnect)

    def open_with_targets(text: str) -> tuple[Source, Targets]:
        source = open_source(text, source_options)
        video = None if no_video else out or (out_dir or Path()) / f"{source.name}.ov2vss.mp4"
        if video is not None and video.exists() and not video.is_file():
            raise VideoError(f"{video} is not a file", "choose another --out")
        video, named, listed = (None if p is None else unlinked(p) for p in (video, jsonl, coco))
        folders = [None if folder is None else folder / source.name for folder in (masks, npz, cvat)]
        return source, Targets(video, folders[0], named, folders[1], npz_top, listed, folders[2], style, mask_format)

    # The model first: a live source should not wait for it. Several files are looked at before the first is begun.
    clip = None
    if is_clip(bundle):
        bundle = bundle if tiles is None else of_windows(bundle)
        aspect = file_aspect(sources[0])
        clip = ClipOptions(clip_weights or "", download, dense or RECIPES[0], aspect)
    elif clip_weights or download or dense:
        raise click.UsageError("--clip-weights, --download and --dense are about --bundle clip:MODEL/TAG")
    segmenter = Segmenter.load(replace(Bundle.open(bundle, clip), plans=plans), backend, precision, threads, device)
    if unknown_below is None:
        stream_options = replace(stream_options, unknown_below=segmenter.bundle.manifest.unknown_below)
    words = segmenter.words(vocab)
    opened: list[tuple[str, Source, Targets]] = []
    failures: list[Failure] = []
    for text in sources:
        try:
            opened.append((text, *open_with_targets(text)))
        except (OV2VSSError, OSError) as error:
            if len(sources) == 1 or (isinstance(error, OV2VSSError) and error.usage):
                raise
            failures.append(Failure(text, error))
    check_places([source for _, source, _ in opened], [(t.files(), t.folders()) for _, _, t in opened])

    def stream_of(source: Source) -> Callable[[], Any]:
        return lambda: segmenter.stream(
            source, words, gap, distant, None, stream_options, realtime, every, frames, queue
        )

    jobs = [(text, stream_of(source), targets, source.live) for text, source, targets in opened]
    outcomes = run_all(jobs, lambda report: print_line(_line(report)))
    reports = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    failures += [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    for failure in failures:
        told = one_line(failure.error)
        click.echo(f"error: {told if told.startswith(failure.source) else f'{failure.source}: {told}'}", err=True)
    if as_json:
        count, seconds = sum(r["frames"] for r in reports), sum(r["seconds"] for r in reports)
        whole = {"frames": count, "seconds": seconds, "fps": count / max(seconds, 1e-9)}
        whole["stages_ms"] = reports[0]["stages_ms"] if len(reports) == 1 else {}
        whole["outputs"] = [o for r in reports for o in r["outputs"]]
        failed = [{"source": failure.source, "error": one_line(failure.error)} for failure in failures]
        print_json(whole | {"sources": reports, "failed": failed})
    if failures:
        raise OV2VSSError(
            f"{len(failures)} of {len(sources)} sources failed: {', '.join(f.source for f in failures)}", "see above"
        )


def _refuse_idle_options(there: dict[str, bool], needs: dict[str, str]) -> None:
    """Refuse an option that was typed and that nothing would look at."""
    context = click.get_current_context()
    for option in context.command.params:
        need = needs.get(option.name or "")
        typed = context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if need is not None and typed and not there[need]:
            raise OV2VSSError(f"{option.opts[0]} is about {need}, and there is none", "leave one out", usage=True)


def _line(report: dict[str, Any]) -> str:
    """One source's report for people."""
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in report["stages_ms"].items())
    moved, age = report["propagated"], report["label_age"]
    most = f", at most {age['most']} frames old" if moved else ""
    notes = [
        f"{report['held']} held" if report["held"] else "",
        f"{moved} moved{most}" if moved else "",
        f"{report['dropped']} dropped" if report["dropped"] else "",
    ]
    extra = "".join(f", {note}" for note in notes if note)
    return f"{report['outputs'][0]}: {report['frames']} frames{extra}, {report['fps']:.1f} fps (ms a frame: {stages})"
