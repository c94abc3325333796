"""The script that scores models on scenes of all kinds, with a model that says what is painted."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from ov2vss.data.relations import Relations

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scenes(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setitem(sys.modules, "scenes", import_module("scenes"))
    return sys.modules["scenes"]


def write(root: Path, classes: list[str], videos: dict[str, list[np.ndarray]]) -> None:
    """Frames whose red channel is the mask."""
    (root / "data").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    (root / "val.txt").write_text("\n".join(videos) + "\n")
    for name, masks in videos.items():
        for part in ("origin", "mask"):
            (root / "data" / name / part).mkdir(parents=True)
        for i, mask in enumerate(masks):
            rgb = np.stack([mask, mask * 0, mask * 0], -1).astype(np.uint8)
            cv2.imwrite(str(root / "data" / name / "origin" / f"{i}.png"), rgb[..., ::-1])
            cv2.imwrite(str(root / "data" / name / "mask" / f"{i}.png"), mask.astype(np.uint8))


class Painted:
    """Scores the word that stands for the red channel of a pixel highest: ``says[id]``, a list, best first."""

    def __init__(self, words, says) -> None:
        self.words, self.says = list(words), says

    def reset(self) -> None: ...

    def logits(self, frame: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(self.words), *frame.shape[:2]), np.float32)
        for k, names in self.says.items():
            for rank, name in enumerate(names):
                if name in self.words:
                    scores[self.words.index(name)][frame[..., 0] == k] = 10 - rank
        return scores


def subject(scenes, says, offset: float = 0.0, trained: frozenset[str] = frozenset()):
    return scenes.Subject(lambda words, aspect, alone: Painted(words, says), trained, offset)


def test_names_that_mean_the_same_are_hits_and_others_are_not(scenes, tmp_path) -> None:
    mask = np.array([[1, 1, 2, 2]] * 8, np.uint8).repeat(4, 1).repeat(2, 0)
    write(tmp_path / "wide" / "facade", ["building", "vegetation"], {"v": [mask]})
    union = ["building", "vegetation", "tree", "window"]
    says = {1: ["building"], 2: ["tree", "vegetation"]}
    found = scenes.still_scores(subject(scenes, says), tmp_path, "facade", 1, union, ["harp"])
    assert [found[k] for k in list(found)[:3]] == [1.0, 0.0, 0.0]
    says = {1: ["window", "building"], 2: ["harp", "vegetation"]}
    found = scenes.still_scores(subject(scenes, says), tmp_path, "facade", 1, union, ["harp"])
    assert found["facade val"] == 1.0
    assert found["facade val, points lost in the union"] == 0.5  # a window is part of a building, no other name of it
    assert found["facade val, points lost by 50 words"] == 0.5


def test_foreground_is_counted_over_all_pixels_of_a_clip(scenes, tmp_path) -> None:
    frames = [np.zeros((16, 16), np.uint8) for _ in range(2)]
    frames[0][:8] = 1
    frames[1][:4] = 1
    write(tmp_path / "wide" / "davis", ["swan", "car"], {"s": frames, "c": [2 * f for f in frames]})
    # The swan is found in full, and so is everything else as "swan" too; the car is taken for a wall.
    says = {0: ["swan", "grass"], 1: ["swan"], 2: ["wall"]}
    found = scenes.davis_scores(subject(scenes, says), tmp_path, 1)
    assert found["davis per clip"] == {"s (swan)": round(12 / 32, 3), "c (car)": 0.0}
    assert (found["davis val"], found["davis val, five nouns"]) == (12 / 64, 12 / 32)


def test_an_offset_is_added_to_what_training_saw_alone(scenes) -> None:
    made = subject(scenes, {0: ["car", "swan"]}, -2.0, frozenset(["car"])).logits(["car", "swan"], 1.0, True)
    assert made(np.zeros((2, 2, 3), np.uint8))[:, 0, 0].tolist() == [8.0, 9.0]


def test_what_a_word_leads_to(scenes) -> None:
    hit, leading = scenes.stand_ins(Relations.read("scenes"), ["tree", "sky", "piano"], ["vegetation", "sky"])
    assert hit.tolist() == [[True, False], [False, True], [False, False]]
    assert leading.tolist() == [0, 1, 2]


def test_unrelated_words_are_fifty_and_none_is_drawn_in_training() -> None:
    words = set((FOLDER / "scenes_words" / "unrelated.txt").read_text().splitlines()[1:])
    folder = FOLDER.parent / "ov2vss" / "data" / "wordings"
    drawn = {w.strip() for f in folder.glob("*.txt") for line in f.read_text().splitlines() for w in line.split(",")}
    assert (len(words), words & drawn) == (50, set())
