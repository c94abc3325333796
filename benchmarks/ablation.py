"""Train and score the rows of an ablation table, and write the report; ``-h`` lists the tables.

    python benchmarks/ablation.py --table modules --data camvid --out runs/ablation --report ablation.md
    python benchmarks/ablation.py --table zero-shot --data camvid --words paraphrases.txt --out runs/ablation

A row is one ``ov2vss-train`` with the preset, the seed, the schedule given with ``--set`` and the row's own switches,
in ``OUT/<row>``, followed by ``ov2vss-eval``. Complete rows are not run again and interrupted ones go on from their
last checkpoint, so the same command continues a table. ``--set`` must then stay the same.

To add a row, name its settings in ``ROWS`` and put it into a table.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from machine import processor, revision

from ov2vss.data import labelled_splits
from ov2vss_runtime.atomic_files import write_json, write_text
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.errors import OV2VSSError

log = logging.getLogger("ov2vss")
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called there, and the settings that make it."""

    title: str
    settings: tuple[str, ...] = ()


ROWS = {
    "baseline": Row("baseline: text and image features", ("model.rfe=false", "model.stcf=false", "model.vte=false")),
    "rfe": Row("+ random frame enhancement", ("model.stcf=false", "model.vte=false")),
    "rfe-stcf": Row("+ spatial-temporal context fusion", ("model.vte=false",)),
    "full": Row("+ video-text encoding: the whole model"),
    "fusion-add": Row("addition", ("model.fusion=add",)),
    "labels-4": Row("4 frames, 4 annotations", ("model.rfe=false", "labelled_frames=4")),
    "labels-1": Row("4 frames, 1 annotation", ("model.rfe=false",)),
    "attention": Row("attention alone", ("model.refine_ffn=false",)),
    "alpha-0.1": Row("alpha 0.1, beta 1", ("alpha=0.1", "beta=1")),
    "alpha-1": Row("alpha 1, beta 1", ("alpha=1", "beta=1")),
    "alpha-10": Row("alpha 10, beta 1", ("alpha=10", "beta=1")),
    "beta-0.1": Row("alpha 1, beta 0.1", ("alpha=1", "beta=0.1")),
    "beta-10": Row("alpha 1, beta 10", ("alpha=1", "beta=10")),
    "gamma-0": Row("without the dense loss", ("gamma=0",)),
    "dense-neighbour": Row("dense features by neighbour", ("model.dense=neighbour",)),
    "dense-calibrated": Row("dense features by calibrated", ("model.dense=calibrated",)),
    "zero-shot": Row("labels of the unseen classes void", ("hold_out_unseen=true",)),
    "zero-shot-masked": Row("and their pixels painted over", ("hold_out_unseen=true", "mask_unseen_pixels=true")),
}
TABLES = {
    "modules": ("Modules", ("baseline", "rfe", "rfe-stcf", "full")),
    "fusion": ("Fusion of the cost volume with the video features", ("fusion-add", "full")),
    "frames": ("Frames and annotations", ("labels-4", "labels-1", "full")),
    "refinement": ("Text refinement: attention, attention and FFN", ("attention", "full")),
    "loss": ("Loss weights", ("alpha-0.1", "alpha-1", "alpha-10", "beta-0.1", "beta-10")),
    "dense-loss": ("Dense loss of models that train their image encoder", ("gamma-0", "full")),
    "dense": (
        "Dense features of a frozen CLIP (the presets ov2vss-*)",
        ("full", "dense-neighbour", "dense-calibrated"),
    ),
    "zero-shot": ("Zero-shot", ("zero-shot",)),
    "masking": ("Zero-shot, unseen pixels in the frames", ("zero-shot", "zero-shot-masked")),
}
"""Title and rows of every table; the first five are the paper's Table III."""


def train(folder: Path, preset: str, data: str, settings: list[str]) -> float:
    """Train one row to its end, or go on with it; seconds of all its pieces together."""
    record = folder / "row.json"
    wanted = {"preset": preset, "data": data, "settings": settings}
    done = json.loads(record.read_text()) if record.is_file() else {}
    begun = done.get("complete") or any((folder / "run").glob("step-*"))
    if done and begun and {k: done[k] for k in wanted} != wanted:
        raise OV2VSSError(f"{folder} holds a row with other settings", "give the same --set, or another --out")
    seconds = done.get("seconds", 0.0)
    if done.get("complete"):
        return seconds
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    command = [str(SCRIPTS / "ov2vss-train"), "--out", str(run)]
    if any(run.glob("step-*")):
        command += ["--resume"]
    else:
        command += ["--preset", preset, "--data", data]
        for setting in settings:
            command += ["--set", setting]
    began, code = time.monotonic(), None
    # Before and after, so that a row that is cut off keeps its settings and its time.
    write_json(record, wanted | {"seconds": seconds, "complete": False, "revision": revision()})
    try:
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode  # the report alone is on stdout
    finally:
        seconds += time.monotonic() - began
        if code and not any(run.glob("step-*")):
            record.unlink()  # nothing was trained: a corrected command may have other settings
        else:
            write_json(record, wanted | {"seconds": seconds, "complete": code == 0, "revision": revision()})
    if code:
        raise OV2VSSError(f"training of {folder.name} ended with exit code {code}", "run the same command to go on")
    return seconds


def score(run: Path, data: str, split: str, gap: int, *more: str) -> dict[str, Any]:
    """Scores of ``ov2vss-eval`` on one split."""
    command = [str(SCRIPTS / "ov2vss-eval"), "--ckpt", str(run), "--data", data, "--split", split]
    done = subprocess.run(
        [*command, "--gap", str(gap), "--json", "-", *more], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise OV2VSSError(f"evaluation of {run} on {split} failed", "run the same command to go on")
    return json.loads(done.stdout.splitlines()[-1])


def score_row(folder: Path, data: str, gaps: tuple[int, int], words: str | None, splits: list[str]) -> dict[str, Any]:
    """Scores of a trained row, kept in ``OUT/<row>/scores.json`` with the arguments that gave them.

    ``test`` and ``val``, each streamed and per frame, as far as they have masks; on the first of them also ``<split>
    words`` with other wordings; and where classes were held out, ``<split> unseen`` by the paper's protocol: truth and
    vocabulary of those classes alone.
    """
    kept = folder / "scores.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    main = splits[0]
    wanted = {split: (split, gap) for split, gap in zip(("test", "val"), gaps, strict=True) if split in splits}
    wanted |= {f"{name} per frame": (*where, "--per-frame") for name, where in list(wanted.items())}
    if words is not None:
        wanted[f"{main} words"] = (*wanted[main], "--vocab", words)
    if "hold_out_unseen=true" in json.loads((folder / "row.json").read_text())["settings"]:
        wanted |= {f"{k} unseen": (*wanted[k], "--protocol", "unseen") for k in (main, f"{main} words") if k in wanted}
    scores = {}
    for name, arguments in wanted.items():
        stored = known.get(name, {})
        if stored.get("arguments") != list(arguments):
            split, gap, *more = arguments
            stored = {"arguments": list(arguments), "scores": score(folder / "run", data, split, gap, *more)}
            write_json(kept, known := known | {name: stored})
        scores[name] = stored["scores"]
    return scores


def _figure(values: list[float | None]) -> str:
    found = [v for v in values if v is not None]
    if not found:
        return "-"
    mean, spread = sum(found) / len(found), (max(found) - min(found)) / 2
    return f"{mean:.3f}" + (f" ± {spread:.3f}" if len(found) > 1 else "")


def report(table: str, records: dict[str, list[dict]], scores: dict[str, list[dict]], command: str) -> str:
    """The table as Markdown; with several seeds, the mean and the half range of each figure.

    Args:
        table: name of the table.
        records: per row and seed, what ``row.json`` holds.
        scores: per row and seed, what :func:`score_row` gave.
        command: that repeats the table.
    """
    names, seeds = TABLES[table][1], len(next(iter(records.values())))
    main = "test" if "test" in scores[names[0]][0] else "val"

    def cell(name: str, key: str, figure: str) -> str:
        return _figure([s.get(key, {}).get(figure) for s in scores[name]])

    first = records[names[0]][0]
    shared = ", ".join(s for s in first["settings"] if s not in ROWS[names[0]].settings)
    lines = [f"## {TABLES[table][0]}", "", f"    {command}", ""]
    lines += [f"Preset {first['preset']}, for all rows: {shared or 'its own settings'}; seeds a row: {seeds}.", ""]
    columns = {
        "test mIoU": ("test", "miou"),
        "test fwIoU": ("test", "fwiou"),
        "test mIoU per frame": ("test per frame", "miou"),
        "val mIoU": ("val", "miou"),
        "VC8": ("val", "vc8"),
        "VC16": ("val", "vc16"),
        "VC8 per frame": ("val per frame", "vc8"),
    }
    body = []
    for name in names:
        minutes = [r["seconds"] / 60 for r in records[name]]
        cells = [cell(name, *where) for where in columns.values()]
        body.append([ROWS[name].title, *cells, f"{sum(minutes) / seeds:.0f}"])
    lines += _table(["row", *columns, "minutes"], body)
    groups = []
    for name in names:
        for key, wording in ((main, "names"), (f"{main} words", "other words")):
            if any("unseen_miou" in s.get(key, {}) for s in scores[name]):
                kinds = ("miou", "seen_miou", "unseen_miou", "harmonic_miou")
                figures = [cell(name, key, kind) for kind in kinds]
                groups.append([ROWS[name].title, wording, *figures, cell(name, f"{key} unseen", "miou")])
            elif key != main and any(key in s for s in scores[name]):
                groups.append([ROWS[name].title, wording, cell(name, key, "miou"), "-", "-", "-", "-"])
    if groups:
        head = ["row", "prompts", f"{main} mIoU", "seen", "unseen", "harmonic", "unseen among themselves"]
        lines += ["", *_table(head, groups)]
    classes = list(scores[names[0]][0][main]["per_class"])
    per_class = [
        [ROWS[n].title, *(_figure([s[main]["per_class"][c] for s in scores[n]]) for c in classes)] for n in names
    ]
    lines += ["", f"IoU per class on {main}:", "", *_table(["row", *classes], per_class)]
    revisions = sorted({r["revision"] for found in records.values() for r in found})
    where = f"{time.strftime('%Y-%m-%d')}, {processor()}, torch {version('torch')}"
    return "\n".join([*lines, "", f"{where}, trained at revision {', '.join(revisions)}."]) + "\n"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


@click.command(context_settings=CONTEXT)
@click.option("--table", default="modules", show_default=True, type=click.Choice(list(TABLES)), help="Which rows.")
@click.option("--preset", default="lite", show_default=True, help="Preset of all rows.")
@click.option("--data", required=True, help="A folder in the VSPW layout, or 'shapes'.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the rows.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of all rows; may be repeated.")
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1, 100), help="Seeds a row; figures are then means."
)
@click.option("--words", default=None, metavar="FILE|WORDS", help="Also score test with other words for the classes.")
@click.option(
    "--gaps",
    default=(1, 3),
    show_default=True,
    type=(click.IntRange(1), click.IntRange(1)),
    help="Distance of references in test and in val, in frames.",
)
@click.option("--report", "report_file", default=None, type=click.Path(path_type=Path), help="Write the table there.")
@program
def main(
    table: str,
    preset: str,
    data: str,
    out: Path,
    settings: tuple[str, ...],
    seeds: int,
    words: str | None,
    gaps: tuple[int, int],
    report_file: Path | None,
) -> None:
    """Run the rows of one ablation table, one after the other."""
    splits = labelled_splits(data)
    if not splits:
        raise OV2VSSError(f"{data} has masks neither in test nor in val", "check --data; a row must be scored on one")
    if "test" not in splits:
        log.info("test has no masks: rows are scored on val alone")
    plan = [(seed, name) for seed in range(seeds) for name in TABLES[table][1]]
    records: dict[str, list[dict]] = {name: [] for _, name in plan}
    scores: dict[str, list[dict]] = {name: [] for _, name in plan}
    for number, (seed, name) in enumerate(plan, 1):
        log.info("row %d of %d: %s, seed %d", number, len(plan), ROWS[name].title, seed)
        own = [*ROWS[name].settings, *([f"seed={seed}"] if seed else [])]
        folder = out / (f"{name}-seed{seed}" if seed else name)
        train(folder, preset, data, [*settings, *own])
        records[name].append(json.loads((folder / "row.json").read_text()))
        scores[name].append(score_row(folder, data, gaps, words, splits))
        log.info("%s mIoU %.3f", splits[0], scores[name][-1][splits[0]]["miou"])
    command = " ".join(["python benchmarks/ablation.py", f"--table {table}", f"--preset {preset}"])
    command += "".join(f" --set {s}" for s in settings) + (f" --seeds {seeds}" if seeds > 1 else "")
    command += f" --gaps {gaps[0]} {gaps[1]}" if gaps != (1, 3) else ""
    text = report(table, records, scores, command + (" --words FILE" if words else "") + " --data DIR --out DIR")
    click.echo(text)
    if report_file is not None:
        write_text(report_file, text)


if __name__ == "__main__":
    main()
