"""libov2vss gives the vectors that every runtime is tested with (tests/vectors), on each engine that was built."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from ctypes import c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from .library import BUILD, ROOT, CEngine, CStream, Labelled

FOLDER = ROOT / "tests/vectors"
CONTENT = json.loads((FOLDER / "cases.json").read_text())
INPUTS, EXPECTED = (load_file(FOLDER / f"{name}.safetensors") for name in ("frames", "expected"))
TOLERANCE = CONTENT["tolerance"]
POLICIES = {"first": 0, "farthest": 1, "reservoir": 2}
SYNONYMS = {"average": 1, "max": 2}


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def small(request: pytest.FixtureRequest) -> Iterator[CEngine]:
    """An engine over the vectors' bundle."""
    module = pytest.importorskip(request.param)
    if request.param == "openvino":
        made = CEngine(FOLDER / "bundle", threads=1)
    else:
        if not (BUILD / "libov2vss_ort.so").exists():
            pytest.skip("built without ONNX Runtime's headers (OV2VSS_ORT_INCLUDE)")
        library = next((Path(module.__file__).parent / "capi").glob("libonnxruntime.so*"))
        made = CEngine(FOLDER / "bundle", threads=1, backend="onnxruntime", runtime=str(library))
    yield made
    made.close()


class Player:
    """One case: its stream, and what its calls do to it."""

    def __init__(self, engine: CEngine, case: dict[str, Any]) -> None:
        self.engine, self.case = engine, case
        options = dict(case.get("options", {}))
        self.synonyms = SYNONYMS.get(options.pop("synonyms", ""), 0)
        self.background = "; ".join(options.pop("background", ())) or None
        self.options = {
            name: float(v) if name in ("unknown_below", "drop_absent") else int(v) for name, v in options.items()
        }
        self.options |= {"gap": case.get("gap") or 0, "distant": POLICIES[case.get("distant", "first")]}
        self.stream = self.made(self.words(case["words"], case.get("embeddings")))

    def words(self, words: str | list[str], embeddings: str | None = None) -> c_void_p:
        text = words if isinstance(words, str) else json.dumps(words)
        if embeddings is None:
            return self.engine.words(text, self.synonyms, self.background)
        rows, names = (
            INPUTS[embeddings],
            [part.strip() for part in words.split(";")] if isinstance(words, str) else words,
        )
        handle, library = c_void_p(), self.engine.library
        array = (ctypes.c_char_p * len(names))(*[name.encode() for name in names])
        library.check(
            library.vocabulary_from_embeddings(
                self.engine.handle, array, len(names), rows.ctypes.data, rows.shape[1], ctypes.byref(handle)
            )
        )
        return handle

    def made(self, words: c_void_p) -> CStream:
        return self.engine.stream(words, **self.options)

    def play(self) -> Iterator[tuple[dict[str, Any], Labelled]]:
        for call in self.case["calls"]:
            frame, time = INPUTS.get(call.get("frame", "")), call.get("time")
            time = math.nan if time is None else time
            match call["call"]:
                case "step":
                    yield call["expect"], self.stream.step(frame, time)
                case "hold":
                    yield call["expect"], self.stream.hold(frame.shape[:2], time)
                case "advance" | "set_first" | "set_last" as name:
                    getattr(self.stream, name)(frame, time)
                case "reset" | "restart" as name:
                    getattr(self.stream, name)()
                case "set_vocabulary":
                    self.stream.set_words(self.words(call["words"]))
                case "save_and_load":
                    data, words = self.stream.save(), self.stream.words
                    self.stream.close()
                    self.stream = self.made(words)
                    self.stream.load(data)
                case other:
                    raise ValueError(f"no call {other!r}")
        self.stream.close()


@pytest.mark.parametrize("case", CONTENT["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_a_case(small: CEngine, case: dict[str, Any]) -> None:
    played = 0
    for expected, found in Player(small, case).play():
        labels, result = EXPECTED[expected["labels"]], found.result
        assert found.labels.dtype == labels.dtype
        differs = np.flatnonzero(found.labels != labels)
        assert set(differs) <= set(EXPECTED[expected["unsure"]] if "unsure" in expected else ()), (played, len(differs))
        facts = (result.index, bool(result.held), result.age, bool(result.cut))
        assert facts == tuple(expected[name] for name in ("index", "held", "age", "cut"))
        if "classes" in expected:
            assert result.classes[: result.rows] == expected["classes"]
        if "logits" in expected:
            logits = EXPECTED[expected["logits"]]
            got = np.ctypeslib.as_array(result.logits, logits.shape)
            assert np.abs(got - logits).max() <= TOLERANCE["logits"] * np.abs(logits).max()
        if "confidence" in expected and found.confidence is not None:
            assert np.abs(found.confidence - EXPECTED[expected["confidence"]]).max() <= TOLERANCE["confidence"]
        played += 1
    assert played == sum("expect" in call for call in case["calls"]) > 0


def test_words(small: CEngine) -> None:
    words = CONTENT["words"]
    found = small.embeddings(small.words(words if isinstance(words, str) else json.dumps(words)))
    assert np.abs(found - EXPECTED["embeddings"]).max() <= TOLERANCE["embeddings"]
