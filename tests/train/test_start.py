"""``--init``, frames in the aspect of the data, longer runs, and pictures among videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ov2vss import checkpoint
from ov2vss.data import FolderVideos, ShapesVideos, StillFrames, open_videos
from ov2vss.data.clips import ClipDataset, ClipSpec
from ov2vss.data.label_tables import label_table
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.cli import main as score
from ov2vss.evaluate.evaluate import evaluate, make_protocol
from ov2vss.presets import PRESETS, configure
from ov2vss.train.cli import main as train
from ov2vss.train.loop import Trainer
from ov2vss.train.start import ClipStart, RunStart, fit_frames, further, nearest_size, parse_init, start_from
from ov2vss.train.vocabulary import shipped_words

STREET = Path(__file__).parents[2] / "models/street-lite"
SHORT = ["iterations=2", "per_frame_iterations=2", "batch=2", "workers=0", "save_every=1"]


def pet(folder: Path, shapes: tuple[tuple[int, int], ...] = ((90, 160),) * 3, split: str = "train") -> Path:
    """Frames of the sizes given with a bright square: 1 = pet, 2 = background."""
    for kind in ("origin", "mask"):
        (folder / "data/walk" / kind).mkdir(parents=True, exist_ok=True)
    for i, (h, w) in enumerate(shapes):
        rgb, ids = np.full((h, w, 3), 60, np.uint8), np.full((h, w), 2, np.uint8)
        rgb[h // 4 : h // 2, w // 4 : w // 2], ids[h // 4 : h // 2, w // 4 : w // 2] = 220, 1
        Image.fromarray(rgb).save(folder / f"data/walk/origin/{i:05d}.png")
        Image.fromarray(ids).save(folder / f"data/walk/mask/{i:05d}.png")
    (folder / "classes.txt").write_text("pet\nbackground\n")
    (folder / f"{split}.txt").write_text("walk\n")
    return folder


def tiny_run(folder: Path, *more: str) -> Path:
    Trainer(configure("tiny", [*SHORT, *more]), folder).fit()
    return folder


def test_one_parser_for_runs_and_clip() -> None:
    assert parse_init("runs/a") == RunStart(Path("runs/a"))
    assert parse_init("clip:ViT-B-16/openai") == ClipStart("ViT-B-16", "openai")
    for broken in ("clip:", "clip:ViT-B-16", "clip:/openai", "clip:ViT-B-16/"):
        with pytest.raises(OV2VSSError, match="write clip:MODEL/TAG"):
            parse_init(broken)


def test_a_run_starts_from_the_weights_of_another_with_its_own_classes(tmp_path: Path) -> None:
    first = tiny_run(tmp_path / "first")
    config = configure(start_from(str(first), None), SHORT, data=str(pet(tmp_path / "pet")))
    trainer = Trainer(config, tmp_path / "second")
    old, new = checkpoint.find(first).weights(), trainer.raw_model.trained_state()
    kept = [k for k in old if not k.startswith("aux_head.")]
    assert len(kept) > 50
    assert all(torch.equal(old[k], new[k]) for k in kept)
    assert len([new[k] for k in new if k.startswith("aux_head.") and new[k].ndim == 4][-1]) == 2
    trainer.fit()
    found = checkpoint.find(tmp_path / "second")
    assert found.run.classes == ["pet", "background"]
    assert any(not torch.equal(old[k], found.weights()[k]) for k in kept)
    again = Trainer(found.run.train, tmp_path / "second", resume=True)  # the run it came from is not needed any more
    assert again.start == 2


def test_street_lite_is_gone_on_with_as_lite_any(tmp_path: Path) -> None:
    config = start_from(str(STREET), None)
    assert config.preset == "lite-any"
    assert config.iterations < PRESETS["lite-any"].iterations
    assert config.wordings == ""
    assert not any("driving" in t for t in config.model.templates)
    assert start_from(str(STREET / "step-00002700"), "lite").iterations == PRESETS["lite"].iterations
    with pytest.raises(OV2VSSError, match="another network .*backbone.*leave --preset out"):
        start_from(str(STREET), "tiny")
    with pytest.raises(OV2VSSError, match="does not exist"):
        start_from(str(tmp_path / "nothing"), None)
    with pytest.raises(OV2VSSError, match="cannot start from CLIP"):
        start_from("clip:ViT-B-16/openai", None)
    changed = configure(config, ["model.width=64", "workers=0"], data=str(pet(tmp_path / "pet")))
    with pytest.raises(OV2VSSError, match="different: width"):
        Trainer(changed, tmp_path / "run")


def test_lite_any_holds_nothing_of_the_street() -> None:
    config = PRESETS["lite-any"]
    street = {w for entry in shipped_words("street").entries for w in entry}
    assert config.wordings == ""
    assert not {w for t in config.model.templates for w in t.replace(".", "").split()} & {*street, "driving", "car"}


@pytest.mark.parametrize(
    ("frame", "size"), [((90, 160), (288, 512)), ((120, 160), (352, 480)), ((160, 90), (512, 288)), ((64, 64), None)]
)
def test_frames_take_the_aspect_of_the_data(tmp_path: Path, frame: tuple[int, int], size: tuple | None) -> None:
    config = configure("lite-any", [], data=str(pet(tmp_path, (frame,) * 2)))
    fitted = fit_frames(config)
    (h, w), (ch, cw) = fitted.size, fitted.crop
    assert size is None or (h, w) == size
    assert abs((w / h) / (frame[1] / frame[0]) - 1) < 0.05
    assert ch <= h
    assert cw <= w
    assert (ch % 32, cw % 32) == (0, 0)
    assert 0.7 < h * w / (352 * 480) < 1.3


def test_every_aspect_is_met_within_a_tenth() -> None:
    for aspect in np.linspace(0.4, 2.6, 45):
        h, w = nearest_size(352 * 480, aspect)
        assert abs(np.log(w / h / aspect)) < 0.1


def test_resume_with_more_iterations(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    longer = further(checkpoint.find(run, "last"), ["iterations=4"])
    Trainer(longer, run, resume=True).fit()
    assert checkpoint.find(run, "last").state["step"] == 4
    assert json.loads((run / "config.json").read_text())["train"]["iterations"] == 4
    rows = [line.split(",")[0] for line in (run / "log.csv").read_text().splitlines()[1:]]
    assert rows == ["2", "4"]
    for arguments, said in (
        (("--set", "iterations=3"), "already at 4"),
        (("--set", "lr=1"), "every --set but iterations"),
        (("--init", "x"), "leave out"),
    ):  # wrong usage, all of it
        refused = CliRunner().invoke(train, ["--out", str(run), "--resume", *arguments])
        assert refused.exit_code == (1 if "already" in said else 2), refused.stderr
        assert said in refused.stderr


def test_stills_are_videos_of_one_frame(tmp_path: Path) -> None:
    pet(tmp_path, ((90, 160), (60, 60), (48, 90)))
    assert len(open_videos(str(tmp_path), "train").videos) == 1
    for stills, listed in ((True, None), (False, "walk\n")):
        (tmp_path / "stills.txt").unlink(missing_ok=True)
        if listed:
            (tmp_path / "stills.txt").write_text(listed)
        videos = open_videos(str(tmp_path), "train", stills=stills)
        assert [videos.length(v) for v in range(3)] == [1, 1, 1]
        assert videos.videos == ["walk"] * 3
        assert [videos.frame_name(v, 0) for v in range(3)] == ["00000", "00001", "00002"]
        assert [videos.mask(v, 0).shape for v in range(3)] == [(90, 160), (60, 60), (48, 90)]
        dataset = ClipDataset(videos, label_table(2), ClipSpec((64, 96), (64, 96)), seed=0)
        item = dataset[0]
        plain = ClipDataset(videos, label_table(2), ClipSpec((64, 96), (64, 96), photometric=False), seed=0)[1]
        assert item["clip"].shape == (4, 3, 64, 96)
        assert all(torch.equal(frame, plain["clip"][0]) for frame in (*plain["clip"], plain["distant"]))
    (tmp_path / "stills.txt").write_text("walk\nrun\n")
    with pytest.raises(OV2VSSError, match="run does not exist"):
        FolderVideos(tmp_path, "train")


def test_only_the_folders_that_are_listed_are_taken_apart() -> None:
    inner = ShapesVideos("val")
    mixed = StillFrames(inner, inner.videos[1:2])
    count = inner.length(1)
    assert mixed.videos[: count + 2] == [inner.videos[0], *[inner.videos[1]] * count, inner.videos[2]]
    assert mixed.length(0) == inner.length(0)
    assert mixed.labelled(1) == [0]
    assert np.array_equal(mixed.frame(4, 0), inner.frame(1, 3))
    assert np.array_equal(mixed.mask(count + 1, 5), inner.mask(2, 5))


def test_frames_of_different_sizes_are_scored(tmp_path: Path) -> None:
    """Twelve frames, every one labelled, of two sizes: scored as ever, but for the consistency."""
    pet(tmp_path, ((90, 160),) * 6 + ((60, 60),) * 6, "test")

    def perfect(videos, video):
        for i in range(videos.length(video)):
            yield (videos.mask(video, i) - 1).astype(np.uint8)

    for stills in (False, True):
        videos = open_videos(str(tmp_path), "test", stills=stills)
        scores = evaluate(videos, make_protocol(videos, "all", None), perfect)
        assert scores["miou"] == 1.0
        assert scores["frames"] == 12
        assert scores["vc8"] is None
    for i in range(12):
        (tmp_path / "pred/walk").mkdir(parents=True, exist_ok=True)
        ids = np.array(Image.open(tmp_path / f"data/walk/mask/{i:05d}.png"))
        Image.fromarray(ids).save(tmp_path / f"pred/walk/{i:05d}.png")
    for more in ((), ("--stills",)):
        done = CliRunner().invoke(score, [f"--pred={tmp_path / 'pred'}", f"--data={tmp_path}", "--json=-", *more])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1])["miou"] == 1.0
