"""The Python runtime gives the vectors that other runtimes are tested with, on either engine of a processor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.vectors.replay import BUNDLE, CASES, FOLDER, cases, load, play

CONTENT = json.loads((FOLDER / CASES).read_text())
INPUTS, EXPECTED = load()
TOLERANCE = CONTENT["tolerance"]


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return Segmenter.load(FOLDER / BUNDLE, request.param, threads=1)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"].replace(" ", "-"))
def test_a_case(segmenter: Segmenter, case: dict[str, Any]) -> None:
    played = 0
    for step in play(segmenter, case, INPUTS):
        found, expected = step.result, step.call["expect"]
        labels = EXPECTED[expected["labels"]]
        assert found.labels.dtype == labels.dtype
        differs = np.flatnonzero(found.labels != labels)
        unsure = EXPECTED[expected["unsure"]] if "unsure" in expected else ()
        assert set(differs) <= set(unsure), (step.number, len(differs))
        facts = (found.index, found.held, found.age, found.cut)
        assert facts == tuple(expected[name] for name in ("index", "held", "age", "cut"))
        if "classes" in expected:
            assert found.classes is not None
            assert found.classes.tolist() == expected["classes"]
        if "logits" in expected:
            logits = EXPECTED[expected["logits"]]
            assert np.abs(found.logits - logits).max() <= TOLERANCE["logits"] * np.abs(logits).max()
        if "confidence" in expected:
            assert np.abs(found.confidence - EXPECTED[expected["confidence"]]).max() <= TOLERANCE["confidence"]
        played += 1
    assert played == sum("expect" in call for call in case["calls"]) > 0


def test_words(segmenter: Segmenter) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / BUNDLE / "tokenizer.json"))
    tokenizer.no_padding()
    for text in CONTENT["texts"]:
        assert tokenizer.encode(text["text"]).ids == text["tokens"]
    embeddings = segmenter.stream(None, CONTENT["words"]).embeddings
    assert np.abs(embeddings - EXPECTED["embeddings"]).max() <= TOLERANCE["embeddings"]


def test_resized_frames_are_the_same_bytes() -> None:
    resized = {name for name in EXPECTED if name.startswith("resized/")}
    assert len(resized) == 3
    for name in resized:
        assert np.array_equal(resize_frame(INPUTS[name.partition("/")[2]], (64, 96)), EXPECTED[name])


def test_cases_that_should_differ_do() -> None:
    """A runtime that ignores an option must not pass."""
    by_name = {case["name"]: [c["expect"] for c in case["calls"] if "expect" in c] for case in cases()}

    def pixels(one: str, other: str, frame: int) -> int:
        """Pixels, sure in both, that two cases label otherwise."""
        sure = np.ones(EXPECTED[by_name[one][frame]["labels"]].size, bool)
        for name in (one, other):
            sure[EXPECTED.get(by_name[name][frame].get("unsure", ""), np.empty(0, int))] = False
        a, b = (EXPECTED[by_name[name][frame]["labels"]].reshape(-1) for name in (one, other))
        return int((a != b)[sure].sum())

    for other, frame in (("gap", 3), ("farthest", 1), ("reservoir", 7), ("candidates", 0), ("unknown", 0),
                         ("background", 0), ("the best synonym counts", 0), ("restart", 5), ("reset", 5)):  # fmt: skip
        assert pixels("first", other, frame) > 3, other
    assert pixels("first", "save and load", 7) == 0
    assert [e["cut"] for e in by_name["cuts"]] == [False, False, False, True, False, True, False]


def test_they_are_small() -> None:
    files = [path for path in Path(FOLDER).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 2**20
