"""The bundle's README: what it is, how it was made, what was proven."""

from __future__ import annotations

from typing import Any

from ov2vss_runtime.bundle.bundle import Manifest
from ov2vss_runtime.bundle.gates import Gate


def model_card(manifest: Manifest, gates: dict[str, list[Gate]], about: str = "") -> str:
    """Markdown text from the manifest, the gates, and what the maker says ``about`` the model."""
    source, words = manifest.source, manifest.vocabulary
    height, width = manifest.preprocess.size
    lines = [
        f"# {manifest.name}",
        "",
        "Open-vocabulary video semantic segmentation (OV2VSS), exported to ONNX. Run it with",
        "",
        f"    ov2vss-run video.mp4 --bundle {manifest.name}",
        "",
        "| | |",
        "|---|---|",
        *_origin(manifest),
        f"| frames | RGB, {height} x {width} (height x width), stretched |",
        f"| default words | {len(words.entries)}: {', '.join(e[0] for e in words.entries[:40])} |",
        f"| licence of the weights | {source['license']['title'] if source.get('license') else 'not given'} |",
        "",
        "Any other words can be given at run time (`--vocab`); how well they work depends on how close they are to",
        "what the model has seen.",
        "",
        *([about.strip(), ""] if about.strip() else []),
        "## Parity with the torch model",
    ]
    for variant, found in gates.items():
        info = manifest.variants[variant]
        files = {graph.file for graph in info.graphs.values()}
        lines += ["", f"### {variant}", ""]
        note = f"; {info.verified['note']}" if "note" in info.verified else ""
        lines += [f"For {', '.join(info.engines)}; files {', '.join(sorted(files))}{note}. {_proof(info.verified)}", ""]
        lines += ["| gate | value | bound | | |", "|---|---|---|---|---|"]
        for gate in found:
            relation = "at least" if gate.above else "at most"
            mark = "pass" if gate.passed else "**FAIL**"
            lines.append(f"| {gate.name} | {gate.value:.6g} | {relation} {gate.bound:g} | {gate.detail} | {mark} |")
    license_info = source.get("license")
    terms = "No licence was given for the weights: ask whoever trained them before you pass them on."
    if "clip" in source:
        terms = f"No licence was given for the weights: read their publisher's ({source['clip']['published']})."
    if license_info:
        terms = f"The weights are under the licence in the file `{license_info['file']}`, which goes with every copy."
    lines += ["", terms, ""]
    return "\n".join(lines)


def _proof(verified: dict[str, Any]) -> str:
    """On which frames the streams were compared."""
    if verified.get("frames") == "generated":
        return (
            "Streams were compared on generated clips of moving shapes, on no real video: "
            "`--calibrate VIDEO` proves them on yours."
        )
    return f"Streams were compared on `{verified.get('frames', 'frames that are not recorded')}`."


def _origin(manifest: Manifest) -> list[str]:
    """Where the weights come from, and what they have seen."""
    source = manifest.source
    if clip := source.get("clip"):
        recipe = ", ".join([manifest.dense.recipe, *(f"{k} {v:g}" for k, v in manifest.dense.constants.items())])
        return [
            f"| weights | CLIP `{clip['model']}`, tag `{clip['tag'] or 'none'}`, file `{clip['weights']}` |",
            f"| published as | {clip['published']} |",
            f"| weights sha256 | `{clip['sha256']}` |",
            f"| dense features | {recipe} |",
            f"| confidence | softmax of {manifest.temperature:g} times the cosine |",
            "| training for segmentation | none |",
        ]
    return [
        f"| preset | `{source['preset']}` |",
        f"| backbone, text encoder | `{source['model']['backbone']}`, `{source['model']['text_encoder']}` |",
        f"| trained on | `{source['data']}`, {source['step']} iterations |",
        f"| classes seen in training | {', '.join(c.split(',')[0] for c in source['trained_classes'])} |",
        f"| classes held out | {', '.join(source['unseen']) or 'none'} |",
        f"| memory | {manifest.references} references, every {manifest.gap} frames |",
        f"| checkpoint sha256 | `{source['checkpoint_sha256']}` |",
    ]
