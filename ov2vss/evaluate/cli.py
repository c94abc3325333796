"""``ov2vss-eval``: a checkpoint, a bundle or stored predictions against labelled videos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ov2vss.options import clip_options, strict_option
from ov2vss_runtime.atomic_files import write_json, write_text
from ov2vss_runtime.bundle.clip_bundles import RECIPES, is_clip
from ov2vss_runtime.console import CONTEXT, Number, print_json, program

if TYPE_CHECKING:
    from ov2vss.data.source import VideoSet
    from ov2vss.evaluate.evaluate import Predict
    from ov2vss.evaluate.predictions import Ids
    from ov2vss_runtime.stream.distant import DistantPolicy

log = logging.getLogger("ov2vss")


@click.command(context_settings=CONTEXT)
@click.option("--ckpt", default=None, type=click.Path(path_type=Path), help="Run folder of ov2vss-train (torch model).")
@click.option("--bundle", default=None, help="Bundle folder or built-in name (exported graphs).")
@click.option(
    "--pred", default=None, type=click.Path(path_type=Path), help="Predictions DIR/<video>/<frame>.png, raw ids."
)
@click.option(
    "--pred-ids",
    default=None,
    type=click.Choice(["one", "zero"]),
    help="With --pred: the id of the first class. one: 1, and 0 is unknown; zero: 0 [default: one].",
)
@click.option(
    "--data",
    required=True,
    help="A folder in the VSPW layout or of Cityscapes, 'shapes', or pictures: voc20:DIR, voc21:DIR, context59:DIR, "
    "context60:DIR, ade150:DIR, cocostuff171:DIR, cocoobject:DIR.",
)
@click.option(
    "--split", default=None, help="Split of the data set [default: test; val for pictures; with --check all]."
)
@click.option("--check", is_flag=True, help="Look at all masks of --data, say what is wrong with them, and stop.")
@click.option(
    "--protocol",
    default="all",
    show_default=True,
    type=click.Choice(["all", "seen", "unseen"]),
    help="Which classes are evaluated and offered as words.",
)
@click.option(
    "--vocab",
    default=None,
    metavar="FILE|WORDS",
    help="Entry i words class i of the data set; further entries are distractors.",
)
@click.option(
    "--gap",
    default=None,
    type=click.IntRange(1, 10_000),
    help="Distance of references in frames [default: the training data's; the bundle's].",
)
@clip_options
@click.option(
    "--dense",
    default=None,
    type=click.Choice(RECIPES),
    help="With --bundle clip:MODEL/TAG: how features of places are taken from CLIP [default: neighbour].",
)
@click.option("--tiles", default=None, metavar="SHORT[:STRIDE]", help="With --bundle: windows, as in ov2vss-run.")
@click.option(
    "--background",
    default=None,
    metavar="FILE|stuff|none",
    help="With --bundle: words that name nothing, as in ov2vss-run [default: stuff for sets with a background class].",
)
@click.option(
    "--unknown-below",
    default=None,
    metavar="P|auto",
    help="With --bundle: pixels less sure are unknown [default: auto for sets with a background class, else 0].",
)
@click.option(
    "--synonyms",
    default=None,
    type=click.Choice(["average", "max"]),
    help="With --bundle: as in ov2vss-run [default: as the bundle says].",
)
@strict_option
@click.option("--stills", is_flag=True, help="Every frame is a picture of its own, without a past.")
@click.option("--per-frame", is_flag=True, help="With --ckpt: the same model with every reference equal to the frame.")
@click.option("--precision", default=None, help="With --bundle: one of its precisions [default: fp32].")
@click.option("--backend", default=None, help="With --bundle: what runs it [default: onnxruntime].")
@click.option(
    "--device",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="With --bundle: number of the GPU.",
)
@click.option(
    "--smooth/--no-smooth",
    default=None,
    help="With --bundle: blend frames along the optical flow, as ov2vss-run does [default: no, exact labels].",
)
@click.option("--keyframes", default=None, metavar="K|auto", help="With --bundle: as in ov2vss-run [default: 1].")
@click.option(
    "--degrade",
    "degradation",
    default=None,
    metavar="KIND:LEVEL",
    help="Make the pictures worse: noise:50, blur:5, jpeg:8 or drop:0.1.",
)
@click.option("--temporal", is_flag=True, help="Also score agreement along the flow, flips, edges and VC8 per class.")
@click.option(
    "--rate",
    default=None,
    type=Number(min=0, min_open=True),
    help="With --temporal: frames a second of the videos, for flips per second [default: 25].",
)
@click.option(
    "--json",
    "json_file",
    default=None,
    type=click.Path(path_type=Path),
    help="Write the scores to FILE; - prints them as the last line of stdout.",
)
@click.option(
    "--csv", "csv_file", default=None, type=click.Path(path_type=Path), help="Write all scores as group,name,value."
)
@program
def main(
    ckpt: Path | None,
    bundle: str | None,
    pred: Path | None,
    pred_ids: Ids | None,
    data: str,
    split: str | None,
    check: bool,
    protocol: str,
    vocab: str | None,
    gap: int | None,
    clip_weights: str | None,
    download: bool,
    dense: str | None,
    tiles: str | None,
    background: str | None,
    unknown_below: str | None,
    synonyms: Literal["average", "max"] | None,
    strict: bool,
    stills: bool,
    per_frame: bool,
    precision: str | None,
    backend: str | None,
    device: int,
    smooth: bool | None,
    keyframes: str | None,
    degradation: str | None,
    temporal: bool,
    rate: float | None,
    json_file: Path | None,
    csv_file: Path | None,
) -> None:
    """Score a model, or anybody's predictions, on labelled videos; one streaming pass per video.

    \b
      ov2vss-eval --ckpt runs/street --data camvid --split test --gap 1
      ov2vss-eval --bundle street-lite --data camvid --gap 1 --vocab paraphrases.txt
      ov2vss-eval --pred predictions/ --data camvid --json scores.json
      ov2vss-eval --bundle clip:ViT-B-16/openai --tiles 336:112 --data voc21:VOCdevkit/VOC2012
      ov2vss-eval --check --data my-masks
    """
    from ov2vss.data import named_set, open_videos
    from ov2vss.errors import OV2VSSError
    from ov2vss.evaluate.degrade import Degraded, parse_degrade
    from ov2vss.evaluate.evaluate import Protocol, evaluate, make_protocol, predict_with
    from ov2vss.evaluate.predictions import shifted_hint, stored_predictions
    from ov2vss.evaluate.table import as_csv, table
    from ov2vss_runtime.bundle.bundle import find_bundle, read_manifest
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.keyframes import parse_keyframes

    if check:
        from ov2vss.data.check import check_data
        from ov2vss.data.check_table import as_json as report_json
        from ov2vss.train.report import print_check

        if ckpt is not None or bundle is not None or pred is not None:
            raise click.UsageError("--check looks at --data alone: leave out --ckpt, --bundle and --pred")
        masks = check_data(data, splits=(split,) if split else ())
        if json_file is not None and str(json_file) != "-":
            write_json(json_file, report_json(masks))
        print_check(masks, str(json_file) == "-")
        return
    split = split or ("test" if named_set(data) is None else "val")
    if sum(x is not None for x in (ckpt, bundle, pred)) != 1:
        raise click.UsageError("give exactly one of --ckpt, --bundle and --pred")
    if per_frame and ckpt is None:
        raise click.UsageError("--per-frame needs --ckpt")
    if pred_ids is not None and pred is None:
        raise click.UsageError("--pred-ids needs --pred")
    if (precision or backend or device) and bundle is None:
        raise click.UsageError("--precision, --backend and --device need --bundle")
    if (smooth is not None or keyframes is not None) and bundle is None:
        raise click.UsageError("--smooth, --no-smooth and --keyframes need --bundle")
    if degradation is not None and pred is not None:
        raise click.UsageError("--degrade changes what a model sees: it needs --ckpt or --bundle")
    if rate is not None and not temporal:
        raise click.UsageError("--rate needs --temporal")
    if temporal and stills:
        raise click.UsageError("--temporal and --stills contradict each other: pictures of their own have no past")
    clip = bundle is not None and is_clip(bundle)
    if (clip_weights is not None or download) and ckpt is None and not clip:
        raise click.UsageError("--clip-weights and --download need --ckpt or --bundle clip:MODEL/TAG")
    if dense is not None and not clip:
        raise click.UsageError("--dense needs --bundle clip:MODEL/TAG")
    if any(x is not None for x in (tiles, background, unknown_below, synonyms)) and bundle is None:
        raise click.UsageError("--tiles, --background, --unknown-below and --synonyms need --bundle")
    # What is not there is said before torch is imported.
    if ckpt is not None and not ckpt.exists():
        raise OV2VSSError(f"checkpoint {ckpt} does not exist", "give the folder that ov2vss-train printed")
    if pred is not None and not pred.is_dir():
        raise OV2VSSError(f"the folder of predictions {pred} does not exist", "check --pred")
    if bundle is not None and not clip:
        read_manifest(find_bundle(bundle))
    worse = parse_degrade(degradation) if degradation is not None else None
    between = parse_keyframes(keyframes) if keyframes is not None else 1
    videos = open_videos(data, split, stills=stills)
    wording = Vocabulary.parse(vocab) if vocab is not None else None

    def protocol_for(trained: list[str], held_out: list[str]) -> Protocol:
        """Seen and unseen as the model was trained, on the data set of its training; on another, as that one says."""
        own = set(trained) | set(held_out) == set(videos.classes.names)
        known = [videos.classes.names.index(n) for n in held_out] if own else videos.unseen
        return make_protocol(videos, protocol, wording, known if known or protocol == "all" else None)

    predict: Predict
    if ckpt is not None:
        from ov2vss import checkpoint
        from ov2vss.torch_engine import PerFrameEngine, TorchEngine
        from ov2vss_runtime.stream.stream import Stream

        found = checkpoint.find(ckpt)
        train = found.run.train
        source = found.run.clip_source(clip_weights, download)
        setup = protocol_for([line.split(",")[0] for line in found.run.classes], found.run.unseen)
        runner = (PerFrameEngine if per_frame else TorchEngine)(
            found.build(source), train.size, found.text_encoder(source)
        )
        templates, distance = train.model.prompts, gap or train.gap
        embeddings = Stream(runner, setup.vocabulary, templates, distance).embeddings
        predict = predict_with(
            lambda: Stream(runner, setup.vocabulary, templates, distance, "farthest", embeddings=embeddings), strict
        )
    elif bundle is not None:
        from ov2vss.evaluate.any_words import WordOptions, clip_for
        from ov2vss_runtime.stream.segmenter import Segmenter

        made = None
        if clip:
            bundle, made = clip_for(bundle, videos, clip_weights, download, dense, tiles is not None)
        segmenter = Segmenter.load(bundle, backend or "onnxruntime", precision or "fp32", device=device, clip=made)
        trained = segmenter.bundle.manifest.source
        known = [line.split(",")[0] for line in trained.get("trained_classes", [])]
        setup = protocol_for(known, trained.get("unseen", []))
        words = WordOptions(background, unknown_below, synonyms, tiles)
        options = words.stream_options(setup, segmenter.bundle.manifest, bool(smooth), between)
        distant: DistantPolicy | None = "farthest" if segmenter.engine.can.distant else None
        embeddings = segmenter.stream(None, setup.vocabulary, options=options).embeddings
        predict = predict_with(
            lambda: segmenter.stream(None, setup.vocabulary, gap, distant, embeddings, options), strict
        )
    else:
        assert pred is not None
        setup = make_protocol(videos, protocol, wording)
        predict = stored_predictions(pred, setup.classes, pred_ids or "one")
    seen: VideoSet = Degraded(videos, *worse) if worse is not None else videos
    moving = None
    if temporal:
        from ov2vss.evaluate.temporal import TemporalTally, watched

        moving = TemporalTally([videos.classes.names[k] for k in setup.classes], rate or 25.0)
        predict = watched(predict, setup, videos, moving)
    scores = evaluate(seen, setup, predict, progress=True, strict=strict)
    if moving is not None:
        scores |= moving.scores()
    held_out = [videos.classes.names[setup.classes[position]] for position in setup.unseen]
    if scores["skipped"]:
        click.echo(f"{scores['skipped']} frames were left out: their image or mask is corrupt")
    for line in table(scores, held_out):
        click.echo(line)
    if csv_file is not None:
        write_text(csv_file, as_csv(scores, held_out))
    if pred is not None and (hint := shifted_hint(videos, setup, pred, pred_ids or "one", scores["miou"])):
        log.warning("%s", hint)
    if str(json_file) == "-":
        print_json(scores)
    elif json_file is not None:
        write_json(json_file, scores)
    if scores["miou"] is None:
        raise OV2VSSError("no labelled pixel was evaluated", "check --split and --protocol")
