"""Train and score the rows of an ablation table, and write the report.

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
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

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
    "zero-shot": Row("the whole model, classes of unseen.txt void in training", ("hold_out_unseen=true",)),
}
TABLES = {
    "modules": ("Modules", ("baseline", "rfe", "rfe-stcf", "full")),
    "zero-shot": ("Zero-shot", ("zero-shot",)),
}
"""Title and rows of every table; the tables of the paper's Table III have its order."""
SEEDED = "-seed"


def train(folder: Path, preset: str, data: str, settings: list[str]) -> float:
    """Train one row to its end, or go on with it; seconds of all its pieces together."""
    record = folder / "row.json"
    wanted = {"preset": preset, "data": data, "settings": settings}
    done = json.loads(record.read_text()) if record.is_file() else {}
    if done and {k: done[k] for k in wanted} != wanted:
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
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    seconds += time.monotonic() - began
    _write(record, wanted | {"seconds": seconds, "complete": code == 0})
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


def score_row(folder: Path, data: str, gaps: tuple[int, int], words: str | None) -> dict[str, Any]:
    """Test and validation scores of a trained row, streamed and per frame, kept in ``OUT/<row>/scores.json``."""
    kept = folder / "scores.json"
    scores = json.loads(kept.read_text()) if kept.is_file() else {}
    wanted = {"test": ("test", gaps[0]), "val": ("val", gaps[1])}
    wanted |= {f"{name} per frame": (*where, "--per-frame") for name, where in list(wanted.items())}
    if words is not None:
        wanted["test words"] = ("test", gaps[0], "--vocab", words)
    for name, (split, gap, *more) in wanted.items():
        if name not in scores:
            scores[name] = score(folder / "run", data, split, gap, *more)
            _write(kept, scores)
    return scores


def _write(path: Path, data: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def report(out: Path, table: str, rows: list[tuple[str, Row]], command: str, words: bool) -> str:
    """The table as Markdown."""
    lines = [f"## {TABLES[table][0]}", "", f"    {command}", ""]
    first = json.loads((out / rows[0][0] / "row.json").read_text())
    own = set(rows[0][1].settings)
    shared = ", ".join(s for s in first["settings"] if s not in own)
    lines += [f"Preset {first['preset']}; settings of all rows: {shared or 'those of the preset'}.", ""]
    head = ["row", "test mIoU", "fwIoU", "per frame", "val mIoU", "VC8", "VC16", "VC8 per frame", "minutes"]
    body = []
    for name, row in rows:
        scores = json.loads((out / name / "scores.json").read_text())
        test, val = scores["test"], scores["val"]
        cells = [test["miou"], test["fwiou"], scores["test per frame"]["miou"], val["miou"], val["vc8"], val["vc16"]]
        cells.append(scores["val per frame"]["vc8"])
        minutes = json.loads((out / name / "row.json").read_text())["seconds"] / 60
        body.append([row.title, *map(_figure, cells), f"{minutes:.0f}"])
    lines += _table(head, body)
    groups = []
    for name, row in rows:
        scores = json.loads((out / name / "scores.json").read_text())
        for key, wording in (("test", "names"), ("test words", "other words")):
            found = scores.get(key, {})
            if key in scores and ("unseen_miou" in found or (words and key == "test words")):
                kinds = ("miou", "seen_miou", "unseen_miou", "harmonic_miou")
                groups.append([row.title, wording, *(_figure(found.get(k)) for k in kinds)])
    if groups:
        lines += ["", *_table(["row", "prompts", "mIoU", "seen", "unseen", "harmonic"], groups)]
    classes = list(json.loads((out / rows[0][0] / "scores.json").read_text())["test"]["per_class"])
    per_class = []
    for name, row in rows:
        found = json.loads((out / name / "scores.json").read_text())["test"]["per_class"]
        per_class.append([row.title, *(_figure(found[c]) for c in classes)])
    lines += ["", "IoU per class on test:", "", *_table(["row", *classes], per_class)]
    return "\n".join(lines) + "\n"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def machine() -> str:
    """What the figures were measured on, in one line."""
    info, names = Path("/proc/cpuinfo"), []
    if info.is_file():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    processor = f"{len(names)} x {names[0]}" if names else platform.machine()
    return f"{time.strftime('%Y-%m-%d')}, {processor}, torch {version('torch')}, revision {revision or 'unknown'}."


@click.command(context_settings=CONTEXT)
@click.option("--table", default="modules", show_default=True, type=click.Choice(list(TABLES)), help="Which rows.")
@click.option("--preset", default="lite", show_default=True, help="Preset of all rows.")
@click.option("--data", required=True, help="A folder in the VSPW layout, or 'shapes'.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the rows.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of all rows; may be repeated.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 100), help="Seeds per row.")
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
    rows: list[tuple[str, Row]] = []
    for seed in range(seeds):
        for name in TABLES[table][1]:
            row = ROWS[name]
            if seed:
                row = Row(f"{row.title} (seed {seed})", (*row.settings, f"seed={seed}"))
            rows.append((name + (f"{SEEDED}{seed}" if seed else ""), row))
    for number, (name, row) in enumerate(rows, 1):
        log.info("row %d of %d: %s", number, len(rows), row.title)
        train(out / name, preset, data, [*settings, *row.settings])
        scores = score_row(out / name, data, gaps, words)
        log.info("%s: test mIoU %.3f", row.title, scores["test"]["miou"])
    command = " ".join(["python benchmarks/ablation.py", f"--table {table}", f"--preset {preset}"])
    command += "".join(f" --set {s}" for s in settings) + (f" --seeds {seeds}" if seeds > 1 else "")
    text = report(out, table, rows, command, words is not None) + f"\n{machine()}\n"
    click.echo(text)
    if report_file is not None:
        part = report_file.with_name(report_file.name + ".part")
        part.write_text(text)
        part.replace(report_file)


if __name__ == "__main__":
    main()
