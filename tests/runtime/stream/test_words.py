"""Synonyms with rows of their own, background words, and words that are not in the picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ov2vss_runtime import Segmenter, StreamOptions
from ov2vss_runtime.bundle.added_words import add_vocabulary
from ov2vss_runtime.bundle.text import STUFF, background_words, word_rows
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.cli import main as run
from ov2vss_runtime.errors import VocabularyError
from ov2vss_runtime.stream.label_map import label_map_numpy
from ov2vss_runtime.stream.pruning import FRAMES_BETWEEN_LOOKS, ClassPruner
from ov2vss_runtime.video.open_source import open_source
from tests.conftest import write_video
from tests.hand_made import SIZE, HandMade

LIST = "road; sky, sea; car"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.load(HandMade().write(tmp_path_factory.mktemp("bundle") / "hand-made"))


def frame(seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (*SIZE, 3)).astype(np.uint8)


def shares(logits: np.ndarray) -> np.ndarray:
    scaled = np.exp(logits - logits.max(0))
    return scaled / scaled.sum(0)


def test_rows_of_words() -> None:
    words = Vocabulary.parse(LIST)
    rows, classes = word_rows(words, "max", ("tree", "Sky", "tree", "dog"))
    assert [entry[0] for entry in rows.entries] == ["road", "sky", "sea", "car", "tree", "dog"]
    assert classes.tolist() == [0, 1, 1, 2, -1, -1]
    rows, classes = word_rows(words)
    assert rows == words
    assert classes.tolist() == [0, 1, 2]


def test_max_is_the_class_of_the_best_synonym(segmenter: Segmenter) -> None:
    image = frame()
    options = StreamOptions(synonyms="max", confidence=True)
    result = segmenter.stream(None, LIST, options=options).step(image)
    rows = HandMade().logits([image], ["road", "sky", "sea", "car"])[0]
    confidence = np.empty(SIZE, np.float32)
    best = label_map_numpy(rows.astype(np.float32), SIZE, confidence)
    # The published protocol: softmax over all rows, the largest share of a class's rows, then the best class.
    assert np.mean(result.labels == np.array([0, 1, 1, 2])[best]) > 0.9999
    assert np.allclose(result.confidence, confidence, atol=1e-4)
    assert result.names == ["road", "sky", "car"]
    assert len(np.unique(result.labels)) > 1
    averaged = segmenter.stream(None, LIST).step(image)
    assert not np.array_equal(averaged.labels, result.labels)


def test_pixels_that_background_words_win_are_unknown(segmenter: Segmenter) -> None:
    image = frame(1)
    result = segmenter.stream(None, "road; car", options=StreamOptions(background=("sky", "tree"))).step(image)
    best = label_map_numpy(HandMade().logits([image], ["road", "car", "sky", "tree"])[0].astype(np.float32), SIZE)
    expected = np.array([0, 1, 255, 255])[best]
    assert np.mean(result.labels == expected) > 0.9999
    assert (result.labels == 255).any()


def test_absent_words_are_left_out_and_tried_again() -> None:
    dense = np.zeros((3, 1, 2), np.float32)
    dense[0, 0, 0] = dense[1, 0, 1] = 1
    pruner = ClassPruner(absent=0.3, temperature=40)
    words = np.eye(3, dtype=np.float32)
    pruner.look(dense, words)
    assert pruner.active().tolist() == [0, 1]
    for _ in range(FRAMES_BETWEEN_LOOKS - 1):
        assert not pruner.due()
        pruner.active()
    assert pruner.due()  # now and then
    pruner.look(np.roll(dense, 1, axis=0), words)
    assert pruner.active().tolist() == [1, 2]
    pruner.restart()
    assert pruner.due()  # a cut


def test_one_word_always_stays_and_labels_are_those_of_the_words_that_do(segmenter: Segmenter) -> None:
    image = frame(2)
    stream = segmenter.stream(None, "road; sky; car; tree", options=StreamOptions(drop_absent=0.9))
    result = stream.step(image)
    cosines = HandMade.embeddings(["road", "sky", "car", "tree"]) @ HandMade.features(image).reshape(8, -1)
    present = np.flatnonzero(shares(stream.engine.can.temperature * cosines).max(1) >= 0.9)
    assert result.classes.tolist() == present.tolist()
    few = ClassPruner(absent=0.99, temperature=1e-3)
    few.look(np.ones((3, 1, 1), np.float32), np.ones((4, 3), np.float32))
    assert len(few.active()) == 1


def test_the_list_that_is_installed(tmp_path: Path) -> None:
    words = background_words("stuff")
    assert {"sky", "wall", "road"} <= set(words)
    assert len(words) == len(Vocabulary.from_file(STUFF)) == 26
    own = tmp_path / "own.txt"
    own.write_text("fog, mist\nsmoke\n")
    assert background_words(str(own)) == ("fog", "mist", "smoke")


def test_near_names_of_added_lists_are_errors_and_one_word_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``--vocab animalss`` was one class called animalss, and every pixel had it."""
    folder = HandMade().write(tmp_path / "hand-made")
    add_vocabulary(folder, "animals", Vocabulary.parse("zebra; pony"))
    segmenter = Segmenter.load(folder)
    for typo in ("animalss", "animal", "Animals", "aminals"):
        with pytest.raises(VocabularyError, match=rf"no list '{typo}', but one called 'animals'; write animals"):
            segmenter.words(typo)
    assert segmenter.words("animals").names == ["zebra", "pony"]
    assert segmenter.words("plants; animalss").names == ["plants", "animalss"]
    segmenter.stream(vocabulary="animals")
    segmenter.stream(vocabulary="zebra", options=StreamOptions(background=("pony",)))
    assert caplog.messages == []
    stream = segmenter.stream(vocabulary="animalss;")
    assert stream.names == ["animalss"]
    assert caplog.messages == [
        "'animalss' is the only word, so every pixel gets it; add what else is there, or background words"
    ]


@pytest.mark.parametrize("least", ["auto", "0.45", "0"])
def test_doubtful_pixels_are_unknown_below_what_the_bundle_says(tmp_path: Path, least: str) -> None:
    folder = HandMade().write(tmp_path / "hand-made", unknown_below=0.45)
    pictures = [cv2.resize(frame(k)[:4, :6], SIZE[::-1], interpolation=cv2.INTER_CUBIC) for k in range(2)]
    video = write_video(tmp_path / "video.mp4", pictures, codec="libx264rgb", pix_fmt="rgb24")
    args = [str(video), "--bundle", str(folder), "--vocab", "road; sky; car; tree", "--masks", str(tmp_path / "masks")]
    args += ["--unknown-below", least, "--no-smooth", "--no-video"]
    done = CliRunner().invoke(run, args)
    assert done.exit_code == 0, done.output
    bound = 0.0 if least == "0" else 0.45
    for number, frame_read in enumerate(open_source(str(video))):
        logits = HandMade().logits([frame_read.rgb], ["road", "sky", "car", "tree"])[0].astype(np.float32)
        confidence = np.empty(SIZE, np.float32)
        wanted = label_map_numpy(logits, SIZE, confidence) + 1
        wanted[confidence < bound] = 0
        found = np.array(Image.open(sorted((tmp_path / "masks" / "video").glob("*.png"))[number]))
        assert np.mean(found == wanted) > 0.999
        assert (found == 0).any() == (bound > 0)


@pytest.mark.parametrize("options", [{}, {"synonyms": "max"}, {"top_classes": 2}], ids=["all", "max", "candidates"])
def test_words_that_training_saw_carry_the_constant_of_the_bundle(tmp_path: Path, options: dict[str, Any]) -> None:
    """In any case of letters and beside synonyms; words that it did not see keep their logits, and labels follow."""
    plain = HandMade().write(tmp_path / "plain")
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest["class_offset"], manifest["source"]["trained_classes"] = -3.0, ["Sky, sea", "car"]
    with_constant = Path(shutil.copytree(plain, tmp_path / "constant"))
    (with_constant / "manifest.json").write_text(json.dumps(manifest))
    made = StreamOptions(logits=True, **options)
    first, second = (Segmenter.load(b).stream(None, LIST, options=made).step(frame()) for b in (plain, with_constant))
    rows, of_class = word_rows(Vocabulary.parse(LIST), options.get("synonyms", "average"))
    if options.get("top_classes"):
        of_class = second.classes
        rows = Vocabulary(tuple(Vocabulary.parse(LIST).entries[k] for k in of_class))
    seen = np.array([any(w in ("sky", "sea", "car") for w in entry) for entry in rows.entries])
    assert 0 < seen.sum() < len(seen) or options.get("top_classes")
    expected = first.logits - 3 * seen[:, None, None].astype(np.float32)
    assert np.array_equal(second.logits, expected)
    labels = of_class[label_map_numpy(expected, SIZE)]
    assert np.array_equal(second.labels, labels)
    assert not np.array_equal(second.labels, first.labels)
