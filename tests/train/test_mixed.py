"""Training on several partly labelled sets: crops, words, the loop and its command line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ov2vss.data import open_files
from ov2vss.data.concepts import Concepts, teacher_names
from ov2vss.data.crop_cache import CropCache
from ov2vss.data.mixed import GRID, MixedCrops, MovingCrops
from ov2vss.data.relations import Relations
from ov2vss.errors import OV2VSSError
from ov2vss.presets import TrainConfig, configure
from ov2vss.text.encoders import WordVectors
from ov2vss.train.imagenet import TEMPERATURE, imagenet_loss
from ov2vss.train.many import MixedTrainer
from ov2vss.train.mixed_vocabulary import MixedVocabulary

SIDE = (96, 128)


def write_set(root: Path, names: str, left: int, right: int, teacher: tuple[int, int] = (0, 0)) -> str:
    """Four pictures: the left half, by a border that moves, is red, the right one blue; ids of their masks and
    teachers, 0 for void."""
    folder = root / "data" / "v"
    for part in ("origin", "mask", "teacher"):
        (folder / part).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(names.split("; ")) + "\n")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("v\n")
    for i in range(4):
        at = np.arange(SIDE[1])[None].repeat(SIDE[0], 0) < 40 + 12 * i
        colour = np.where(at[..., None], (30, 20, 220), (220, 20, 30)).astype(np.uint8)  # BGR
        cv2.imwrite(str(folder / "origin" / f"{i}.png"), colour)
        cv2.imwrite(str(folder / "mask" / f"{i}.png"), np.where(at, left, right).astype(np.uint8))
        cv2.imwrite(str(folder / "teacher" / f"{i}.png"), np.where(at, *teacher).astype(np.uint8))
    return str(root)


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """One set labels what is red, the other what is blue; of the first a teacher knows the rest."""
    (tmp_path / "teacher_classes.txt").write_text("green ring\nblue disc\n")
    return [
        write_set(tmp_path / "a", "red circle; green ring", 1, 0, (0, 2)),
        write_set(tmp_path / "b", "blue square; green bar", 0, 1),
    ]


@pytest.fixture
def relations(tmp_path: Path) -> Relations:
    (tmp_path / "same.txt").write_text("blue square = blue disc\n")
    return Relations.read(tmp_path / "same.txt")


def crops(sets: list[str], relations: Relations, folder: Path, **values) -> MixedCrops:
    concepts = Concepts([open_files(s, "train") for s in sets], teacher_names(sets), relations)
    weights = [np.full(256, 1, np.float32)] * 2
    settings = {"shares": (1, 1), "stretched": (96, 160), "crop": (64, 96), "scale": (0.6, 1.6), "seed": 0}
    settings |= {"weights": weights, "teacher": 0.5, "void": 0.25, "whole": (False, False), "photometric": False}
    return MixedCrops(CropCache(folder, sets), concepts, **(settings | values))


def test_whole_iterations_are_of_clips_whose_labels_lie_on_the_target(sets, relations, tmp_path) -> None:
    """The picture says its labels by its colours, moved and covered as it is; what is not moving stays as it was."""
    plain = crops(sets, relations, tmp_path / "cache")
    data = crops(sets, relations, tmp_path / "cache", moving=MovingCrops(0.5, 4, 3, 2))
    clips = [i for i in range(40) if "past" in data[i]]
    assert 8 <= len(clips) <= 32
    assert all((i // 4 == j // 4) <= ("past" in data[j]) for i in clips for j in range(40))
    still = next(i for i in range(40) if i not in clips)
    assert torch.equal(data[still]["frame"], plain[still]["frame"])
    moved = 0
    for i in clips:
        item = data[i]
        assert item["past"].shape == (3, 3, 64, 96)
        assert item["distant"].shape == (3, 64, 96)
        assert (item["cells"] == -1).all()
        moved += not torch.equal(item["past"][0], item["frame"])
        frame, rows = item["frame"].numpy().astype(int)[:, 2::4, 2::4], item["rows"].numpy()
        red = frame[0] > frame[2] + 60
        own = (rows == 0) if item["number"] == 0 else (rows == 2)
        inside = (rows >= 0) & (abs(frame[0] - frame[2]) > 100)
        assert (own == (red if item["number"] == 0 else ~red))[inside].mean() > 0.97
    assert moved > len(clips) / 2  # of the rest one colour fills the crop
    worse = crops(sets, relations, tmp_path / "cache", moving=MovingCrops(0.5, 4, 3, 2, 1.0))[clips[0]]
    assert torch.equal(worse["past"], data[clips[0]]["past"])
    assert not torch.equal(worse["frame"], data[clips[0]]["frame"])


def test_labels_lie_on_what_they_name_however_a_crop_is_scaled_and_turned(sets, relations, tmp_path) -> None:
    data = crops(sets, relations, tmp_path / "cache")
    names = data.concepts.names
    assert names == ["red circle", "green ring", "blue square", "green bar", "blue disc"]
    red, square, disc, void = 0, 2, 4, 5
    expected = {0: (red, disc), 1: (void, square)}  # left and right, of each set
    weight = {red: 1.0, square: 1.0, disc: 0.5, void: 0.25, -1: 0.0}
    checked, kinds = 0, set()
    for i in range(40):
        item = data[i]
        frame, rows = item["frame"].numpy().astype(int), item["rows"].numpy()
        at = frame[:, 2::4, 2::4]
        for where, k in ((at[0] > 180) & (at[2] < 60), 0), ((at[2] > 180) & (at[0] < 60), 1):
            agree = rows[where] == expected[item["number"]][k]
            assert agree.mean() > 0.97 if agree.size else True, f"sample {i}"
            checked += agree.size
        assert (np.abs(at[:, rows < 0] - 127) <= 110).all(), "outside of the picture, but a colour of its inside"
        assert all(np.allclose(item["weight"].numpy()[rows == k], weight[int(k)]) for k in np.unique(rows))
        kinds |= set(np.unique(rows).tolist())
    assert checked > 5000
    assert kinds == {red, square, disc, void, -1}


def test_a_sample_is_the_same_whoever_asks_and_the_cache_is_written_once(sets, relations, tmp_path) -> None:
    one, two = crops(sets, relations, tmp_path / "cache"), crops(sets, relations, tmp_path / "cache")
    written = (tmp_path / "cache" / "pictures.bin").stat()
    for i in (0, 7, 31):
        assert all(torch.equal(torch.as_tensor(one[i][k]), torch.as_tensor(two[i][k])) for k in one[i])
    assert len(one) == 8
    assert (tmp_path / "cache" / "pictures.bin").stat().st_mtime_ns == written.st_mtime_ns
    crops(sets[:1] * 2, relations, tmp_path / "cache")
    assert (tmp_path / "cache" / "pictures.bin").stat().st_mtime_ns != written.st_mtime_ns, "other sets, old pictures"


def test_cells_are_those_of_the_picture_under_each_dense_feature(sets, relations, tmp_path) -> None:
    data = crops(sets, relations, tmp_path / "cache", scale=(1.0, 1.0), stretched=SIDE, crop=SIDE)
    columns = SIDE[1] // GRID
    plain = np.array([[(y * 16 + 8) // GRID * columns + (x * 16 + 8) // GRID for x in range(8)] for y in range(6)])
    found = {data[i]["cells"].numpy().tobytes(): data[i]["cells"].numpy() for i in range(30)}
    assert any((cells == plain).all() for cells in found.values())
    assert any((cells == plain[:, ::-1]).all() for cells in found.values()), "none is mirrored"


def test_words_of_a_crop_are_what_it_shows_then_its_set_then_others(sets, relations, tmp_path) -> None:
    (tmp_path / "words.txt").write_text("red circle, red ball, green ring\nblue square, blue box, blue disc\n")
    concepts = Concepts([open_files(s, "train") for s in sets], teacher_names(sets), relations)
    config = configure("tiny", ["model.embed_dim=32"]).model
    made = MixedVocabulary(WordVectors(32), concepts, config, str(tmp_path / "words.txt"), 2, 1.0, 0.0)
    # A wording that is another class's name is taken only where the table lets it.
    assert made.wordings[0] == ["red circle", "red ball"]
    assert made.wordings[2] == ["blue square", "blue box", "blue disc"]
    rng = np.random.default_rng(0)
    rows = np.array([[0, 0, 4, 5, -1]], np.int16)
    for _ in range(5):
        chosen = made.choose(rng, 0, rows, 4).tolist()
        assert (chosen[:2], len(set(chosen))) == ([0, 4], 4)
    assert made.draw(rng).norm(dim=-1).allclose(torch.ones(5))
    assert made.negatives(rng).shape == (2, 32)


def test_the_imagenet_loss_by_hand() -> None:
    names = torch.eye(3)
    dense = torch.tensor([0.6, 0.8, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    ids = torch.tensor([[[[1, 0], [2, 0]]]])
    shares = torch.tensor([[[[0.6, 0.2], [0.1, 0.1]]]])
    p = np.exp(np.array([0.6, 0.8, 0.0]) / TEMPERATURE)
    log = np.log(p / p.sum())
    expected = -(0.75 * log[1] + 0.25 * log[0])  # the second place is not sure enough
    assert abs(imagenet_loss(dense, ids, shares, names, 0.3).item() - expected) < 1e-4
    assert imagenet_loss(dense, ids, shares, names, 0.9).item() == 0


def tiny(sets: list[str], relations: Path, iterations: int) -> TrainConfig:
    given = [f"relations={relations}", f"iterations={iterations}", "per_frame_iterations=1000", "batch=4", "words=5"]
    given += ["crop=64x96", "size=96x128", "warmup=2", "beta=0", "workers=0", "save_every=6", "void=object,object"]
    return configure("tiny", given, data=sets[0], more_data=sets[1:])


def test_two_sets_teach_one_model_and_a_resumed_run_equals_an_uninterrupted_one(sets, relations, tmp_path) -> None:
    losses: dict[str, list[float]] = {"whole": [], "parts": []}

    def train(out: str, iterations: int, resume: bool) -> dict[str, torch.Tensor]:
        config = tiny(sets, tmp_path / "same.txt", iterations)
        trainer = MixedTrainer(config, tmp_path / out, resume)
        plain = trainer._iterate
        trainer._iterate = lambda *given: losses[out].append(plain(*given)) or losses[out][-1]  # type: ignore
        trainer.fit()
        return load_file(tmp_path / out / f"step-{iterations:08d}" / "model.safetensors")

    whole = train("whole", 12, False)
    config = tiny(sets, tmp_path / "same.txt", 12)
    first = MixedTrainer(config, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.fit(lambda step: _stop() if step == 6 else None)
    parts = train("parts", 12, True)
    assert len(losses["parts"]) == 6
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert np.mean(losses["whole"][-3:]) < np.mean(losses["whole"][:3])


def test_clips_made_of_stills_are_trained_on(sets, relations, tmp_path) -> None:
    config = tiny(sets, tmp_path / "same.txt", 4).model_copy(update={"moving": 0.5, "degraded_targets": 0.5})
    trainer, seen = MixedTrainer(config, tmp_path / "run"), []
    plain = trainer._iterate

    def watched(iteration: int, parts: list, single: bool) -> float:
        seen.append("past" in parts[0])
        return plain(iteration, parts, single)

    trainer._iterate = watched  # type: ignore[method-assign]
    before = {k: v.clone() for k, v in trainer.raw_model.stcf.state_dict().items()}
    trainer.fit()
    assert set(seen) == {True, False}
    assert any(not torch.equal(v, before[k]) for k, v in trainer.raw_model.stcf.state_dict().items())


def _stop() -> None:
    raise KeyboardInterrupt


def test_settings_of_several_sets_are_checked(sets, tmp_path) -> None:
    with pytest.raises(OV2VSSError, match="shares has 3 values for 2 sets"):
        configure("tiny", ["shares=1,2,3"], data=sets[0], more_data=sets[1:])
    with pytest.raises(OV2VSSError, match="void"):
        configure("tiny", ["void=object,nothing"], data=sets[0], more_data=sets[1:])
    with pytest.raises(OV2VSSError, match="a frame at a time"):
        MixedTrainer(configure("tiny", [], data=sets[0], more_data=sets[1:]), tmp_path / "run")
