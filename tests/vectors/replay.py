"""Plays the cases of ``cases.json`` through a stream of the Python runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.segmenter_stream import SegmenterStream

FOLDER = Path(__file__).parent
CASES, FRAMES, EXPECTED, BUNDLE = "cases.json", "frames.safetensors", "expected.safetensors", "bundle"


@dataclass(frozen=True)
class Played:
    """A frame that was labelled.

    Attributes:
        case, number: name of the case, and how many frames it labelled before this one.
        call: entry of the case's list that asked for it.
        result: what came out.
    """

    case: str
    number: int
    call: dict[str, Any]
    result: Result


def cases(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The list of cases."""
    found: list[dict[str, Any]] = json.loads((folder / CASES).read_text())["cases"]
    return found


def play(segmenter: Segmenter, case: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[Played]:
    """Make the case's stream and its calls; one :class:`Played` for each ``step`` and ``hold``.

    Args:
        segmenter: of the folder's bundle.
        case: from :func:`cases`.
        arrays: of ``frames.safetensors``: frames, and embeddings that a case brings along.
    """

    def stream() -> SegmenterStream:
        options = dict(case.get("options", {}))
        options["background"] = tuple(options.get("background", ()))
        return segmenter.stream(
            None,
            case["words"],
            case.get("gap"),
            case.get("distant", "first"),
            arrays[case["embeddings"]] if "embeddings" in case else None,
            StreamOptions(**options),
        )

    playing, number = stream(), 0
    for call in case["calls"]:
        frame, time = arrays.get(call.get("frame", "")), call.get("time")
        match call["call"]:
            case "step" | "hold" as name:
                assert frame is not None
                yield Played(case["name"], number, call, getattr(playing, name)(frame, time))
                number += 1
            case "advance" | "set_first" | "set_last" as name:
                getattr(playing, name)(frame, time)
            case "reset" | "restart" as name:
                getattr(playing, name)()
            case "set_vocabulary":
                playing.set_vocabulary(call["words"])
            case "save_and_load":
                words, data = playing.vocabulary, playing.save()
                playing = stream()
                playing.set_vocabulary(words)
                playing.load(data)
            case other:
                raise ValueError(f"no call {other!r}")


def load(folder: Path = FOLDER) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs."""
    return load_file(folder / FRAMES), load_file(folder / EXPECTED)
