"""Data sets on disk: layouts, look-up tables, corrupt files, and what clips are cut from them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ov2vss.data import CityscapesVideos, CorruptFile, FolderVideos, labelled_split, open_videos
from ov2vss.data.clips import ClipDataset, ClipSpec, collate
from ov2vss.data.images import read_ids, read_rgb
from ov2vss.data.label_tables import VOID, label_table, protocol_classes
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.evaluate import evaluate, make_protocol
from tests.conftest import run_program

SIZE = (64, 96)


def write_folder(
    root: Path,
    videos: dict[str, int],
    classes: list[str] | None = ("road", "sky", "car"),
    unseen: list[str] | None = None,
    every: int = 1,
    split: str = "train",
) -> Path:
    """A folder in the VSPW layout; mask ids change from frame to frame: frame i has id 1 + i % 3 in its left half."""
    (root / f"{split}.txt").write_text("\n".join(videos))  # no newline at the end
    if classes is not None:
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    if unseen is not None:
        (root / "unseen.txt").write_text("\n".join(unseen) + "\n")
    for video, length in videos.items():
        for kind in ("origin", "mask"):
            (root / "data" / video / kind).mkdir(parents=True, exist_ok=True)
        for i in range(length):
            rgb = np.full((*SIZE, 3), 10 * i, np.uint8)
            rgb[:, : SIZE[1] // 2] = (200, 40, 10 * i)
            Image.fromarray(rgb).save(root / "data" / video / "origin" / f"{i:08d}.png")
            if i % every == 0:
                mask = np.zeros(SIZE, np.uint8)
                mask[:, : SIZE[1] // 2] = 1 + i % 3
                mask[:8] = 255
                Image.fromarray(mask).save(root / "data" / video / "mask" / f"{i:08d}.png")
    return root


def write_indexed(path: Path, ids: np.ndarray) -> None:
    """An indexed PNG with some palette."""
    image = Image.fromarray(ids)
    image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(path)


# -- VSPW --------------------------------------------------------------------------------------------------------------


def test_vspw_itself_has_124_classes_and_the_80_44_split(tmp_path: Path) -> None:
    videos = FolderVideos(write_folder(tmp_path, {"a": 3}, classes=None), "train")
    assert len(videos.classes) == 124
    assert (videos.classes.names[0], videos.classes.names[79], videos.classes.names[80], videos.classes.names[123]) == (
        "wall",
        "bag_or_package",
        "trash_can",
        "train",
    )
    assert videos.unseen == list(range(80, 124))
    raw = np.array([0, 1, 80, 81, 124, 255])
    expected = {
        "all": [VOID, 0, 79, 80, 123, VOID],
        "seen": [VOID, 0, 79, VOID, VOID, VOID],
        "unseen": [VOID, VOID, VOID, 0, 43, VOID],
    }
    for protocol, labels in expected.items():
        table = label_table(124, protocol_classes(protocol, 124, videos.unseen))
        assert table[raw].tolist() == labels
        assert table.shape == (256,)


def test_vspw_names_are_those_of_the_shared_facts() -> None:
    facts = Path(__file__).parents[3] / "shared" / "data" / "vspw_classes.json"
    if not facts.is_file():
        pytest.skip("the shared folder with facts about VSPW is not here")
    from ov2vss.data.folder import VSPW_CLASSES
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    known = json.loads(facts.read_text())
    assert Vocabulary.from_file(VSPW_CLASSES).names == known["seen"] + known["unseen"]
    from ov2vss.data.cityscapes import CLASSES, NOVEL

    assert list(CLASSES) == known["cityscapes_trainid_names"]
    assert sorted(NOVEL) == sorted(known["cityscapes_eight_novel"])


def test_sparse_labels_and_the_last_line_of_a_split_file(tmp_path: Path) -> None:
    videos = FolderVideos(write_folder(tmp_path, {"one": 7, "two": 4}, every=3), "train")
    assert videos.videos == ["one", "two"]
    assert [videos.labelled(v) for v in range(2)] == [[0, 3, 6], [0, 3]]
    assert videos.length(0) == 7
    assert videos.frame(0, 2)[0, 0].tolist() == [200, 40, 20]


def test_masks_with_a_palette_are_read_as_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [255, 124, 7]], np.uint8)
    write_indexed(tmp_path / "palette.png", ids)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    assert np.array_equal(read_ids(tmp_path / "palette.png"), ids)
    assert np.array_equal(read_ids(tmp_path / "grey.png"), ids)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(CorruptFile, match="is a RGB image"):
        read_ids(tmp_path / "colour.png")


def test_the_split_that_a_training_is_scored_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 3})
    assert labelled_split(str(root)) is None
    (root / "val.txt").write_text("a\n")
    assert labelled_split(str(root)) == "val"
    (root / "test.txt").write_text("b\n")
    (root / "data" / "b" / "origin").mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "data" / "b" / "origin" / "0.png")
    assert labelled_split(str(root)) == "val"  # test without public masks, as in VSPW
    (root / "test.txt").write_text("a\n")
    assert labelled_split(str(root)) == "test"
    assert labelled_split("shapes") == "test"


# -- Cityscapes --------------------------------------------------------------------------------------------------------


def write_cityscapes(root: Path, kind: str, sequence: bool = True) -> Path:
    """Two snippets of a city; the label of the first holds every id once."""
    city = "zurich"
    labels = root / "gtFine" / "val" / city
    frames = root / ("leftImg8bit_sequence" if sequence else "leftImg8bit") / "val" / city
    labels.mkdir(parents=True)
    frames.mkdir(parents=True)
    for drive, labelled in (("zurich_000000", 19), ("zurich_000001", 49)):
        numbers = range(labelled - 19, labelled + 11) if sequence else [labelled]
        for n in numbers:
            Image.fromarray(np.full((8, 16, 3), n, np.uint8)).save(frames / f"{drive}_{n:06d}_leftImg8bit.png")
        ids = np.arange(128, dtype=np.uint8).reshape(8, 16)
        Image.fromarray(ids).save(labels / f"{drive}_{labelled:06d}_gtFine_label{kind}.png")
    return root


def test_cityscapes_snippets(tmp_path: Path) -> None:
    videos = open_videos(str(write_cityscapes(tmp_path, "TrainIds")), "val")
    assert isinstance(videos, CityscapesVideos)
    assert videos.videos == ["zurich_000000_000019", "zurich_000001_000049"]
    assert [videos.length(v) for v in range(2)] == [30, 30]
    assert [videos.labelled(v) for v in range(2)] == [[19], [19]]
    assert videos.frame(1, 0)[0, 0, 0] == 30
    assert videos.frame(1, 19)[0, 0, 0] == 49
    # Train id k is stored as k, and is raw id k + 1 here; everything else is void.
    mask = videos.mask(0, 19).reshape(-1)
    assert mask[:19].tolist() == list(range(1, 20))
    assert set(mask[19:].tolist()) == {255}
    assert [videos.classes.names[k] for k in videos.unseen] == [
        "sidewalk", "fence", "traffic light", "traffic sign", "vegetation", "terrain", "rider", "train",
    ]  # fmt: skip


def test_cityscapes_full_label_ids_and_single_frames(tmp_path: Path) -> None:
    videos = CityscapesVideos(write_cityscapes(tmp_path, "Ids", sequence=False), "val")
    assert [videos.length(v) for v in range(2)] == [1, 1]
    mask = videos.mask(0, 0).reshape(-1)
    by_name = {videos.classes.names[k - 1]: i for i, k in enumerate(mask.tolist()) if k != 255}
    assert by_name["road"] == 7
    assert by_name["traffic light"] == 19
    assert by_name["train"] == 31
    assert by_name["bicycle"] == 33
    assert len(by_name) == 19
    # 29 and 30 (caravan, trailer) and 6 (ground) are void.
    assert {mask[i] for i in (0, 6, 29, 30, 34)} == {255}


def test_cityscapes_errors(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, "TrainIds")
    with pytest.raises(OV2VSSError, match="no split 'test'"):
        CityscapesVideos(root, "test")
    (root / "leftImg8bit_sequence" / "val" / "zurich" / "zurich_000001_000049_leftImg8bit.png").unlink()
    with pytest.raises(OV2VSSError, match="no frame for the label zurich_000001_000049"):
        CityscapesVideos(root, "val")


def test_a_model_of_another_data_set_is_scored_by_this_ones_novel_classes(tmp_path: Path) -> None:
    """Predictions that are right everywhere score one; frames after the labelled one are never asked for."""
    videos = CityscapesVideos(write_cityscapes(tmp_path, "TrainIds"), "val")
    protocol = make_protocol(videos, "all", None)
    table = label_table(19)
    asked = []

    def predict(_: object, video: int):
        for index in range(30):
            asked.append(index)
            yield (
                np.where((m := table[videos.mask(video, 19)]) == VOID, 3, m) if index == 19 else np.zeros((8, 16), int)
            )

    scores = evaluate(videos, protocol, predict)
    assert max(asked) == 19
    assert scores["miou"] == scores["unseen_miou"] == scores["harmonic_miou"] == 1.0
    assert scores["vc8"] is None


# -- clips -------------------------------------------------------------------------------------------------------------

PLAIN = ClipSpec(SIZE, SIZE, scale=(1.0, 1.0), gap=1, reverse=False, flip=False, photometric=False)


def test_hidden_classes_are_painted_over_in_every_frame_with_a_mask(tmp_path: Path) -> None:
    """Frame i shows class i % 3 on its left half: of a clip t-3..t, the frames with i % 3 == 1 lose it."""
    videos = FolderVideos(write_folder(tmp_path, {"a": 9}, unseen=["sky"]), "train")
    table = label_table(3, [0, 2])
    spec = ClipSpec(**{**PLAIN.__dict__, "fill": (9, 8, 7)})
    plain, hidden = ClipDataset(videos, table, spec, 0), ClipDataset(videos, table, spec, 0, hidden=[1])
    found = 0
    for sample in range(12):
        a, b = plain[sample], hidden[sample]
        assert torch.equal(a["labels"], b["labels"])
        for x, y in zip((*a["clip"], a["distant"]), (*b["clip"], b["distant"]), strict=True):
            index = int(x[0, 0, -1]) // 10
            if index % 3 == 1:
                found += 1
                assert (y[:, 8:, : SIZE[1] // 2] == torch.tensor([9, 8, 7])[:, None, None]).all()
                assert torch.equal(y[:, :, SIZE[1] // 2 :], x[:, :, SIZE[1] // 2 :])
                assert torch.equal(y[:, :8], x[:, :8])  # void stays
            else:
                assert torch.equal(x, y)
    assert found > 5
    assert int(videos.frame(0, 1)[20, 0, 0]) == 200  # the stored frame is untouched


def test_several_labelled_frames_of_a_clip(tmp_path: Path) -> None:
    videos = FolderVideos(write_folder(tmp_path, {"a": 6}, every=2), "train")
    spec = ClipSpec(**{**PLAIN.__dict__, "labelled": 4})
    dataset = ClipDataset(videos, label_table(3), spec, 0)
    seen = set()
    for sample in range(20):
        item = dataset[sample]
        assert item["labels"].shape == (4, *SIZE)
        indices = [int(frame[0, 0, -1]) // 10 for frame in item["clip"]]
        for position, index in enumerate(indices):
            labels = item["labels"][position]
            if index % 2 or index in indices[position + 1 :]:
                assert (labels == VOID).all()
            else:
                assert set(labels[8:, : SIZE[1] // 2].unique().tolist()) == {index % 3}
        seen.add(tuple(indices))
    assert (0, 0, 0, 0) in seen
    assert (1, 2, 3, 4) in seen


def _spoil(path: Path, keep: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_corrupt_files_are_named_and_replaced(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 4})
    _spoil(root / "data/a/origin/00000002.png")
    (root / "data/a/mask/00000001.png").write_bytes(b"")
    videos = FolderVideos(root, "train")
    dataset = ClipDataset(videos, label_table(3), PLAIN, 0, single=True)
    items = [dataset[i] for i in range(40)]
    batch = collate(items)
    assert batch["clip"].shape == (40, 1, 3, *SIZE)
    assert {Path(name.split(" cannot")[0]).name for name in batch["skipped"]} == {"00000001.png", "00000002.png"}
    # Frames 0 and 3 are all that is left.
    assert {int(c[0, 0, 0, -1]) // 10 for c in batch["clip"]} == {0, 3}
    strict = ClipDataset(videos, label_table(3), PLAIN, 0, single=True, strict=True)
    first = next(i for i in range(40) if dataset[i]["skipped"])
    with pytest.raises(CorruptFile, match=r"0000000[12]\.png cannot be decoded"):
        strict[first]


def test_only_corrupt_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 2})
    for i in range(2):
        _spoil(root / f"data/a/origin/{i:08d}.png")
    with pytest.raises(OV2VSSError, match="samples in a row are corrupt"):
        ClipDataset(FolderVideos(root, "train"), label_table(3), PLAIN, 0, single=True)[0]


def test_a_truncated_jpeg_is_corrupt(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), noise)
    assert read_rgb(tmp_path / "a.jpg").shape == (64, 64, 3)
    _spoil(tmp_path / "a.jpg")
    with pytest.raises(CorruptFile, match="cannot be decoded"):
        read_rgb(tmp_path / "a.jpg")


def test_evaluation_leaves_corrupt_frames_out_or_stops(tmp_path: Path) -> None:
    """Stored predictions that are right: the corrupt mask is not counted; with --strict it ends the program."""
    (tmp_path / "set").mkdir()
    root = write_folder(tmp_path / "set", {"a": 12}, split="test")
    predictions = tmp_path / "predictions" / "a"
    predictions.mkdir(parents=True)
    for mask in sorted((root / "data/a/mask").glob("*.png")):
        ids = read_ids(mask)
        write_indexed(predictions / mask.name, np.where(ids == 255, 1, ids).astype(np.uint8))
    _spoil(root / "data/a/mask/00000005.png", 0.5)
    args = ("--pred", predictions.parent, "--data", root, "--json", "-")
    done = run_program("ov2vss-eval", *args)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert (scores["miou"], scores["frames"], scores["skipped"], scores["vc8"]) == (1.0, 12, 1, None)
    assert "00000005.png cannot be decoded" in done.stderr
    assert "1 frames were left out" in done.stdout
    done = run_program("ov2vss-eval", *args, "--strict")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "00000005.png" in done.stderr


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ov2vss.data import images

    frame_bytes = SIZE[0] * SIZE[1] * 3
    monkeypatch.setattr(images, "CACHE_BYTES", 2 * frame_bytes)
    videos = FolderVideos(write_folder(tmp_path, {"a": 5}), "train", cache=True)
    for i in range(5):
        assert videos.frame(0, i)[0, -1, 0] == 10 * i
    assert len(videos._cache) == 2
    assert videos.frame(0, 0) is videos.frame(0, 0)
    assert videos.frame(0, 4) is not videos.frame(0, 4)


def test_video_consistency_by_hand_at_windows_of_8_and_16(tmp_path: Path) -> None:
    """Two hand-made videos of four pixels, scored by the program.

    Windows of n frames start at 0 .. length - n - 1. The long video's four pixels: steady in truth and prediction; a
    prediction that changes after frame 4; a truth that changes after frame 8; a truth that is void in frame 12.

        window 8, start   0, 1      2, 3, 4   5 .. 8    9
        steady in truth   a b c d   a b d     a b       a b c
        and predicted     3/4       2/3       1         1         sum of the ten: 8.5

    Windows of 16 start at 0 and 1: a and b are steady in truth, a alone in the prediction: 1/2 and 1/2. The short
    video's prediction changes in every frame: 0 at both of its windows of 8, and it has none of 16.
    """
    root, predictions = tmp_path / "set", tmp_path / "predictions"
    truth = np.tile(np.array([1, 2, 1, 2], np.uint8), (18, 1))
    predicted = truth.copy()
    predicted[5:, 1] = 3
    truth[9:, 2] = 3
    truth[12, 3] = 0
    short = np.ones((10, 4), np.uint8)
    flicker = np.tile(np.arange(10, dtype=np.uint8)[:, None] % 2 + 2, (1, 4))
    root.mkdir()
    (root / "classes.txt").write_text("road\nsky\ncar\n")
    (root / "test.txt").write_text("long\nshort\n")
    for video, masks, guesses in (("long", truth, predicted), ("short", short, flicker)):
        for folder in (root / "data" / video / "origin", root / "data" / video / "mask", predictions / video):
            folder.mkdir(parents=True)
        for i, (mask, guess) in enumerate(zip(masks, guesses, strict=True)):
            Image.fromarray(np.zeros((1, 4, 3), np.uint8)).save(root / f"data/{video}/origin/{i:05d}.png")
            write_indexed(root / f"data/{video}/mask/{i:05d}.png", mask[None])
            write_indexed(predictions / video / f"{i:05d}.png", guess[None])
    done = run_program("ov2vss-eval", "--pred", predictions, "--data", root, "--json", "-")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["frames"] == 28
    assert scores["vc8"] == pytest.approx(8.5 / 12)
    assert scores["vc16"] == pytest.approx(0.5)
