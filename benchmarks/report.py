"""The JSON files of the scripts beside it -> docs/benchmarks.md with plots.

    python benchmarks/report.py benchmarks/results/*.json --out docs/benchmarks.md

Every file says which script wrote it, with which command, on which machine. Bounds are checked from the same figures.
``--notes FILE`` is Markdown that goes in as it is, for what figures do not say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from factors import factors, weights
from parity import table as parity_table
from scaling import table as scaling_table
from tables import COLUMNS, limit_table, stage_table, table

from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.errors import OV2VSSError

Records = dict[str, list[dict[str, Any]]]
COLOURS = ("#bbbbbb", "#66c2a5", "#1f78b4", "#33a02c", "#ff7f00", "#e31a1c", "#cab2d6", "#6a3d9a")
"""Of the stages, in order."""
SPAN = 2.0
"""Points of mIoU that a plot shows at least, so that a tenth of one does not look like a cliff."""


def load(files: tuple[Path, ...]) -> Records:
    """Records by the script that wrote them, in the order of the files."""
    found: Records = {}
    for path in files:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(record["script"], []).append(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OV2VSSError(
                f"{path} is not a record of these scripts ({type(error).__name__})", "write it with --json"
            ) from None
    return found


# -- plots -------------------------------------------------------------------------------------------------------------


class Plots:
    """Writes PNGs beside the report."""

    def __init__(self, folder: Path, link: str) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self.pyplot, self.folder, self.link = pyplot, folder, link
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, caption: str, draw: Callable[[Any], None], height: float = 3.6) -> str:
        """A picture, as Markdown; ``draw`` takes its axes."""
        figure, axes = self.pyplot.subplots(figsize=(8, height))
        draw(axes)
        figure.tight_layout()
        figure.savefig(self.folder / f"benchmark-{name}.png", dpi=110)
        self.pyplot.close(figure)
        return f"![{caption}]({self.link}/benchmark-{name}.png)"


def stage_bars(rows: list[dict[str, Any]]) -> Callable[[Any], None]:
    """Stacked medians of the stages, a bar a configuration."""

    def draw(axes: Any) -> None:
        names = [f"{r['title']}, {r['classes']} words" for r in rows]
        left = [0.0] * len(rows)
        for stage, colour in zip(COLUMNS, COLOURS, strict=True):
            widths = [r["ms"].get(stage, {"p50": 0.0})["p50"] for r in rows]
            if any(widths):
                axes.barh(names, widths, left=left, label=stage, color=colour)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="ms a frame, one stage after the other (medians)")
        axes.legend(fontsize=7, ncols=2)
        axes.tick_params(axis="y", labelsize=8)

    return draw


def scatter(rows: list[dict[str, Any]]) -> Callable[[Any], None]:
    """Accuracy against speed."""

    def draw(axes: Any) -> None:
        for number, r in enumerate(rows):
            at = (r["fps"], 100 * r["miou"])
            axes.scatter(*at)
            # One above, one below: configurations of the same speed lie on each other.
            axes.annotate(r["title"], at, fontsize=7, xytext=(3, -10 if number % 2 else 4), textcoords="offset points")
        axes.set(xlabel="frames a second, decoded frame to label map", ylabel="mIoU, %")
        axes.margins(x=0.15)
        middle = sum(100 * r["miou"] for r in rows) / len(rows)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, middle - SPAN / 2), max(high, middle + SPAN / 2))

    return draw


def lines(rows: list[dict], x: str, y: str, by: str | None, labels: tuple[str, str], log: bool = False) -> Callable:
    """``y`` against ``x``, a line for each value of ``by``."""

    def draw(axes: Any) -> None:
        for group in dict.fromkeys(r[by] if by else "" for r in rows):
            chosen = [r for r in rows if not by or r[by] == group]
            axes.plot(
                [r[x] for r in chosen], [r[y] for r in chosen], marker="o", label=f"{by}: {group}" if by else None
            )
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
            values = [r[y] for r in rows]
            axes.set_xticks(sorted({r[x] for r in rows}))
            axes.set_yticks(
                [v for v in (10, 20, 50, 100, 200, 500, 1000, 2000) if min(values) / 2 < v < 2 * max(values)]
            )
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:.0f}")
                axis.set_minor_formatter("")
        else:
            axes.set_ylim(0, None)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if by:
            axes.legend(fontsize=8)

    return draw


# -- bounds ------------------------------------------------------------------------------------------------------------


def bounds(records: Records) -> list[str]:
    """What must hold, against what was measured; only what the files hold figures for."""
    found: list[tuple[str, float, str, float, bool]] = []

    def check(what: str, value: float | None, relation: str, bound: float) -> None:
        if value is not None:
            found.append((what, value, relation, bound, value >= bound if relation == ">=" else value <= bound))

    for record in records.get("latency", []):
        full = [r for r in record["rows"] if r["preset"] == "ov2vss-r101" and r["classes"] == 124]
        if full:
            _full_size(record, full, check)
        lite = [
            r for r in record["rows"] if r["bundle"] == "street-lite" and r["kind"] == "stream" and r["classes"] == 20
        ]
        if lite:
            best = max(lite, key=lambda r: r["fps"])
            what = f"street-lite, 20 classes, {best['title']}{accuracy(records, 'street-lite', best['title'])}"
            check(f"{what}: fps of graphs and label map", best["fps"], ">=", 25)
            check(f"{what}: fps of ov2vss-run", best["run_fps"], ">=", 20)
    for record in records.get("scaling", []):
        rows = record["topics"].get("words", {}).get("rows", [])
        at = {(r["words"], r["candidates"]): r for r in rows}
        engine = f"{record['bundle']}, {record['backend']} {record['precision']}"
        if (1200, 64) in at:
            growth = at[1200, 64]["median_ms"] / at[124, "all"]["median_ms"]
            same = at[1200, 64]["same_label"]
            what = f"{engine}: 1,200 words with 64 candidates against 124 words (labels {same:.3f} the same)"
            check(what, growth, "<=", 1.6)
        changes = record["topics"].get("words", {}).get("new_words_ms")
        if changes:
            check(f"{engine}: ms for 20 new words", sorted(changes)[len(changes) // 2], "<=", 150)
    for record in records.get("memory", []):
        check(f"MB of growth over {record['frames']} frames", record["growth_mb"], "<=", 20)
    out = ["| what | measured | bound | |", "|---|---|---|---|"]
    for what, value, relation, bound, ok in found:
        digits = 5 if 0.99 < bound < 1 else 2
        out.append(f"| {what} | {value:.{digits}f} | {relation} {bound:g} | {'holds' if ok else '**missed**'} |")
    return out


def accuracy(records: Records, bundle: str, title: str) -> str:
    """The mIoU of a configuration, in brackets, where a record of parity.py has it."""
    for record in records.get("parity", []):
        for split, rows in record["splits"].items() if record["bundle"] == bundle else ():
            for r in rows:
                if r["title"] == title:
                    return f" (mIoU {r['miou']:.3f} on {record['data']} {split})"
    return ""


def _full_size(record: dict[str, Any], rows: list[dict[str, Any]], check: Callable) -> None:
    for ratio in record["comparisons"]:
        if ratio["bundle"] != rows[0]["bundle"] or ratio["classes"] != 124:
            continue
        made_of = factors(record["rows"], ratio["bundle"], ratio["size"], ratio["classes"], ratio["what"])
        what = f"r101: {ratio['what']}{f' = {made_of}' if made_of else ''}"
        if ratio["what"].startswith("authors' scheme against the stream"):
            check(what, ratio["ratio"], ">=", 4.0)
        elif ratio["what"].startswith("authors' scheme, onnxruntime"):
            check(what, ratio["ratio"], ">=", 11)
        elif ratio["what"].startswith("authors' scheme, torch"):
            check(what, ratio["ratio"], ">=", 15)
        elif ratio["what"] == "network against its backbone alone (onnxruntime fp32)":
            check(what, ratio["ratio"], "<=", 1.25)
    for row in rows:
        if row["kind"] == "reference":
            check(f"r101: {row['title']}: share of pixels with the stream's label", row["same_labels"], ">=", 0.9995)
        if row["kind"] == "stream" and row["title"] == "onnxruntime fp32":
            check("r101: share of the fp32 peak, onnxruntime", row.get("share_of_limit"), ">=", 0.85)
            check("r101: ms of the label map", row["ms"]["labels"]["p50"], "<=", 12)
            outside = 1 - row["ms"]["backbone"]["p50"] / row["ms"]["network"]["p50"]
            check("r101: share of the frame outside of the backbone, onnxruntime fp32", outside, "<=", 0.20)
        if row["kind"] == "stream" and row["title"] == "openvino bf16":
            check("r101: share of the bf16 peak, openvino", row.get("share_of_limit"), ">=", 0.75)


# -- the report --------------------------------------------------------------------------------------------------------


def said(record: dict[str, Any]) -> list[str]:
    """Where a record comes from."""
    m = record["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in m["versions"].items() if name != "ov2vss")
    return [
        "```bash",
        m["command"],
        "```",
        "",
        f"{m['processor']} ({', '.join(m['instructions'])}), revision {m['revision']}, {m['date']}; {versions}.",
        "",
    ]


def most_compared(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Of every bundle, the rows of the size and number of words that has most of them."""
    found = []
    for bundle in dict.fromkeys(r["bundle"] for r in rows):
        groups: dict[tuple, list[dict[str, Any]]] = {}
        for r in rows:
            if r["bundle"] == bundle:
                groups.setdefault((*r["size"], r["classes"]), []).append(r)
        found.append(max(groups.values(), key=len))
    return found


def report(records: Records, plots: Plots, notes: str) -> list[str]:
    """Lines of the whole document."""
    out = [
        "# Benchmarks",
        "",
        "Made by `benchmarks/report.py` from `benchmarks/results`; each section names its machine and command.",
        "",
    ]
    if len(checks := bounds(records)) > 2:
        out += ["## What must hold", "", *checks, ""]
    out += [notes.strip(), ""] if notes else []
    for number, record in enumerate(records.get("latency", [])):
        names = ", ".join(dict.fromkeys(r["bundle"] for r in record["rows"]))
        out += [f"## Latency: {names}", "", *said(record)]
        out += [
            "Medians in ms; `network` is a decoded frame to its label map, `run fps` is `ov2vss-run` end to end.",
            "Below: 1e9 operations of each graph, the least time at the measured peak, and the share of it reached.",
            "",
        ]
        peak = ", ".join(f"{k} {rate:.0f}e9 ({by})" for k, (rate, by) in record["peaks"].items())
        out += [f"Measured peak of matrix products, operations a second: {peak}. {record['threads']} threads. "]
        out[-1] += f"The whole run took {record['seconds']:.0f} s."
        out.append("")
        out += [*table(record["rows"]), ""]
        out += [*limit_table(record["rows"]), ""]
        for c in record["comparisons"]:
            if not c["what"].startswith("network against"):
                made_of = factors(record["rows"], c["bundle"], c["size"], c["classes"], c["what"])
                row = next(r for r in record["rows"] if r["bundle"] == c["bundle"])
                where = f"{c['bundle']} ({weights(row)}), {c['size'][0]}x{c['size'][1]}, {c['classes']} classes"
                out.append(f"* {where}: {c['what']}: {c['ratio']:.2f} times{f' = {made_of}' if made_of else ''}")
        out += [f"* not measured: {note}" for note in record["not_measured"]] + [""]
        for k, rows in enumerate(most_compared(record["rows"])):
            out += [*stage_table(rows[0]), ""]
            caption = (
                f"{rows[0]['bundle']}: milliseconds a frame by stage and configuration, {rows[0]['classes']} words"
            )
            out += [plots.save(f"latency-{number}-{k}", caption, stage_bars(rows), 1.2 + 0.38 * len(rows)), ""]
    for record in records.get("parity", []):
        out += [f"## Speed and accuracy together: {record['bundle']} on {record['data']}", "", *said(record)]
        for split, rows in record["splits"].items():
            out += [f"{split}:", "", *parity_table(rows), ""]
        split, rows = next(iter(record["splits"].items()))
        out += [plots.save("parity", f"mIoU on {split} against frames a second", scatter(rows)), ""]
    drawn = {
        "words": ("words", "median_ms", "candidates", ("words", "ms a frame"), True),
        "size": ("pixels", "median_ms", None, ("pixels of a frame", "ms a frame"), False),
        "references": ("references", "median_ms", "scheme", ("references n", "ms a frame"), False),
        "streams": ("streams", "fps_together", None, ("streams at once", "frames a second, together"), False),
        "memory": ("frames", "resident_mb", None, ("frames of the stream", "resident memory, MB"), False),
    }
    for number, record in enumerate(records.get("scaling", [])):
        out += [f"## Scaling: {record['bundle']}, {record['backend']} {record['precision']}", "", *said(record)]
        for topic, result in record["topics"].items():
            out += [f"### {topic}", "", *scaling_table(result["rows"]), ""]
            if topic == "words":
                changes = sorted(result["new_words_ms"])
                out += [f"{result['new_words']} new words on the way: median {changes[len(changes) // 2]:.0f} ms.", ""]
            x, y, by, labels, log = drawn[topic]
            caption = f"{labels[1]} against {labels[0]}"
            out += [plots.save(f"scaling-{topic}-{number}", caption, lines(result["rows"], x, y, by, labels, log)), ""]
    for record in records.get("memory", []):
        out += ["## Memory over a long stream", "", *said(record)]
        rows = [{"frames": a, "mb": b} for a, b in record["points"]]
        labels = ("frames", "resident memory, MB")
        out += [plots.save("memory", "Resident memory against frames", lines(rows, "frames", "mb", None, labels)), ""]
    for record in records.get("operators", []):
        out += [f"## Operators: {record['bundle']}, {record['backend']} {record['precision']}", "", *said(record)]
        for name, graph in record["graphs"].items():
            share = f", {graph['share']:.0%} of the peak" if graph["share"] else ""
            out += [f"{name}: {graph['ms']:.1f} ms, {graph['rate']:.0f}e9 operations a second{share}", ""]
            out += ["| operator | ms |", "|---|---|"]
            out += [f"| {operator} | {ms:.2f} |" for operator, ms in graph["by_operator"][:8]] + [""]
    return out


@click.command(context_settings=CONTEXT)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default=Path("docs/benchmarks.md"), show_default=True, type=click.Path(path_type=Path))
@click.option("--notes", default=None, type=click.Path(path_type=Path), help="Markdown to put after the bounds.")
@program
def main(files: tuple[Path, ...], out: Path, notes: Path | None) -> None:
    """Turn records into a report; plots go to a folder 'images' beside it."""
    plots = Plots(out.parent / "images", "images")
    text = report(load(files), plots, notes.read_text(encoding="utf-8") if notes else "")
    out.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    click.echo(out)


if __name__ == "__main__":
    main()
