"""Data, loss, and runs that are interrupted."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ov2vss import checkpoint
from ov2vss.data import CorruptFile, FolderVideos, ShapesVideos
from ov2vss.data.clips import ClipDataset, ClipSpec, clip_indices, distant_index
from ov2vss.data.label_tables import VOID, label_table
from ov2vss.errors import OV2VSSError
from ov2vss.model import Prediction
from ov2vss.presets import PRESETS, configure
from ov2vss.text import build_text_encoder
from ov2vss.train.loop import Trainer
from ov2vss.train.loss import class_weights, loss_sum
from ov2vss.train.schedule import learning_rate_factor
from ov2vss.train.vocabulary import TrainingVocabulary, shipped_words
from ov2vss.weights_file import read_weights
from tests.conftest import SCRIPTS

SPEC = ClipSpec(size=(128, 192), crop=(96, 128), scale=(0.8, 1.25))
FAST = ["per_frame_iterations=2", "batch=2", "warmup=2", "save_every=3", "workers=0"]


def test_clips_clamp_at_the_first_frame() -> None:
    assert [clip_indices(t, 3, 3) for t in (0, 4, 9, 20)] == [[0] * 4, [0, 0, 1, 4], [0, 3, 6, 9], [11, 14, 17, 20]]


def test_the_distant_frame_lies_outside_the_clip() -> None:
    rng = np.random.default_rng(0)
    drawn = {distant_index(20, [5, 8, 11, 14], rng) for _ in range(500)}
    assert drawn == {*range(5), *range(15, 20)}
    assert distant_index(4, [0, 0, 0, 3], rng) in range(4)


@pytest.mark.parametrize("single", [True, False])
def test_samples_depend_on_seed_and_number_alone(single: bool) -> None:
    videos = ShapesVideos("train")
    table = label_table(len(videos.classes))
    one, two = (ClipDataset(videos, table, SPEC, seed=1, single=single) for _ in range(2))
    torch.manual_seed(123)
    a = one[7]
    torch.rand(5)
    two[3]
    b = two[7]
    tensors = [k for k in a if k != "skipped"]
    assert all(torch.equal(a[k], b[k]) for k in tensors)
    other = ClipDataset(videos, table, SPEC, seed=2, single=single)[7]
    assert any(not torch.equal(a[k], other[k]) for k in tensors)
    assert a["skipped"] == []
    frames = 1 if single else 4
    assert a["clip"].shape == (frames, 3, 96, 128)
    assert a["clip"].dtype == a["labels"].dtype == torch.uint8


def test_one_geometry_for_a_clip_and_its_labels() -> None:
    """On a clip that stands still, all frames and the labels are cut in the same place."""

    class Still(ShapesVideos):
        def frame(self, video: int, index: int) -> np.ndarray:
            return np.repeat(super().mask(video, 0)[..., None], 3, axis=2) * 12

        def mask(self, video: int, index: int) -> np.ndarray:
            return super().mask(video, 0)

    videos = Still("train")
    spec = ClipSpec(size=(128, 192), crop=(96, 128), scale=(1.0, 1.0), photometric=False)
    dataset = ClipDataset(videos, np.arange(256, dtype=np.uint8), spec, seed=0)
    for sample in range(5):
        item = dataset[sample]
        for frame in (*item["clip"], item["distant"]):
            assert torch.equal(frame[0], item["labels"] * 12)


def test_training_clips_never_show_held_out_compositions() -> None:
    train, test = ShapesVideos("train"), ShapesVideos("test")
    hidden = {k + 1 for k in train.unseen}
    assert len(hidden) == 4
    for video in range(0, 60):
        assert not hidden & set(np.unique(train.mask(video, 0)).tolist())
    shown = set().union(*(set(np.unique(test.mask(v, 0)).tolist()) for v in range(len(test.videos))))
    assert hidden <= shown


def test_generated_clips_are_the_same_every_time() -> None:
    a, b = ShapesVideos("test"), ShapesVideos("test")
    assert np.array_equal(a.frame(3, 5), b.frame(3, 5))
    assert not np.array_equal(a.frame(3, 5), a.frame(3, 6))
    assert not np.array_equal(a.frame(3, 5), ShapesVideos("train").frame(3, 5))


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_by_hand(weighted: bool) -> None:
    torch.manual_seed(0)
    share = torch.rand(256) + 0.5 if weighted else torch.ones(256)
    logits, aux = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 4, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 8, 10)).to(torch.uint8)
    labels[0, :4] = VOID
    volume = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    total = loss_sum(Prediction(logits, aux, volume), labels, 0.7, 0.3, 0.2, share if weighted else None)
    expected = torch.zeros((), dtype=torch.float32)
    for weight, x in ((0.7, logits), (0.3, aux), (0.2, volume / 0.07)):
        full = F.interpolate(x.float(), (8, 10), mode="bilinear", align_corners=False).log_softmax(1)
        for b in range(2):
            for y in range(8):
                for z in range(10):
                    if labels[b, y, z] != VOID:
                        label = int(labels[b, y, z])
                        expected = expected - weight * share[label] * full[b, label, y, z]
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


def test_class_weights_by_hand(tmp_path: Path) -> None:
    """Masks of 64 pixels: 40, 16 and 4 pixels of three classes, 4 void, a fourth class in none; one mask is corrupt."""
    ids = np.repeat(np.array([1, 2, 3, 0], np.uint8), [40, 16, 4, 4]).reshape(8, 8)
    for kind in ("origin", "mask"):
        (tmp_path / "data/a" / kind).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"data/a/origin/{i}.png")
        Image.fromarray(ids).save(tmp_path / f"data/a/mask/{i}.png")
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "classes.txt").write_text("road\nsky\npole\nhorse\n")
    (tmp_path / "data/a/mask/2.png").write_bytes(b"")
    videos = FolderVideos(tmp_path, "train")
    weights = class_weights(ClipDataset(videos, label_table(4), SPEC, 0, single=True), 4, 0.5)
    expected = [(16 / 40) ** 0.5, 1.0, (16 / 4) ** 0.5, 1.0]
    assert weights[:4].tolist() == pytest.approx(expected)
    assert weights[VOID] == 0
    plain = class_weights(ClipDataset(videos, label_table(4), SPEC, 0, single=True), 4, 0.0)
    assert plain[:4].tolist() == [1, 1, 1, 1]
    with pytest.raises(CorruptFile):
        class_weights(ClipDataset(videos, label_table(4), SPEC, 0, single=True, strict=True), 4, 0.5)


def test_schedule() -> None:
    config = configure("tiny", ["iterations=100", "warmup=10"])
    assert learning_rate_factor(config, 0) == pytest.approx(0.1)
    assert learning_rate_factor(config, 9) == pytest.approx(1.0)
    assert learning_rate_factor(config, 50) == pytest.approx(0.5**0.9)


def test_training_words_vary_but_keep_their_class() -> None:
    config = PRESETS["tiny"].model
    encoder = build_text_encoder(config)
    videos = ShapesVideos("train")
    words = TrainingVocabulary(encoder, videos.classes, config, "", negatives=3)
    text = words.draw(np.random.default_rng(0))
    assert text.shape == (len(videos.classes) + 3, config.embed_dim)
    assert torch.allclose(text[: len(videos.classes)], words.canonical, atol=1e-6)
    assert not set(shipped_words("negatives").names) & {n for e in shipped_words("street").entries for n in e}


def test_wordings_are_mixed_with_unrelated_words() -> None:
    """A drawn row is a wording plus at most half of another word, as a least-squares fit shows."""
    config = PRESETS["tiny"].model
    encoder = build_text_encoder(config)
    classes = ShapesVideos("train").classes
    words = TrainingVocabulary(encoder, classes, config, negatives=2, sampling=1.0, mixing=0.5)
    text = words.draw(np.random.default_rng(0))
    assert torch.allclose(text.norm(dim=1), torch.ones(len(text)), atol=1e-5)
    shares = []
    for k in range(len(classes)):
        fits = []
        for other in words.pool:
            basis = torch.stack([words.canonical[k], other], dim=1)
            found = torch.linalg.lstsq(basis, text[k][:, None]).solution[:, 0]
            fits.append((float((basis @ found - text[k]).norm()), float(found[1] / found[0])))
        error, share = min(fits)
        assert error < 1e-5
        shares.append(share)
    assert 0 <= min(shares) < 0.2
    assert 0.3 < max(shares) <= 0.5
    for wanted in ("paraphrases", "distractors"):
        file = Path(__file__).parents[3] / "shared/data/camvid" / f"{wanted}.txt"
        if file.is_file():
            trained = {*shipped_words("negatives").names, *(n for e in shipped_words("street").entries for n in e)}
            assert not trained & set(file.read_text().splitlines())


def test_settings_are_checked() -> None:
    for override, message in [
        ("iterations", "has no value"),
        ("no_such=1", "names no setting"),
        ("iterations=many", "iterations"),
        ("crop=100x100", "multiples of 32"),
        ("model.width=30", "multiple of heads"),
        ("labelled_frames=5", "a clip has 4 frames"),
        ("accumulate=3", "multiple of accumulate"),
    ]:
        with pytest.raises(OV2VSSError, match=message):
            configure("tiny", [override])
    with pytest.raises(OV2VSSError, match="needs hold_out_unseen"):
        configure("tiny", ["mask_unseen_pixels=true", "hold_out_unseen=false"])
    with pytest.raises(OV2VSSError, match="choose one of: ov2vss-r101, ov2vss-pvt-b2, tiny, lite"):
        configure("huge", [])
    assert configure("tiny", ["crop=96x128", "model.width=64", "flip=false"]).crop == (96, 128)


def _train(out: Path, iterations: int, resume: bool = False, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    config = configure("tiny", [f"iterations={iterations}", *FAST])

    def stop(step: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    trainer = Trainer(config, out, resume)
    if stop_at is None:
        trainer.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(stop)
    return checkpoint.find(out, "last").weights()


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole", 6)
    _train(tmp_path / "parts", 6, stop_at=3)
    assert checkpoint.find(tmp_path / "parts").state["step"] == 3
    parts = _train(tmp_path / "parts", 6, resume=True)
    assert whole.keys() == parts.keys()
    different = [k for k in whole if not torch.equal(whole[k], parts[k])]
    assert not different
    rows = list(csv.reader((tmp_path / "parts" / "log.csv").open()))
    assert [row[0] for row in rows] == ["iteration", "6"]


def test_resume_needs_the_same_settings(tmp_path: Path) -> None:
    _train(tmp_path / "run", 3)
    with pytest.raises(OV2VSSError, match="other settings"):
        Trainer(configure("tiny", ["iterations=3", *FAST, "lr=1e-5"]), tmp_path / "run", resume=True)


def test_kill_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    """kill -9 while checkpoints are written every iteration: the last complete one loads and resumes."""
    settings = ["iterations=500", "per_frame_iterations=500", "batch=1", "save_every=1", "workers=0", "crop=64x64"]
    command = [str(SCRIPTS / "ov2vss-train"), "--out", str(tmp_path / "run")]
    for setting in settings:
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while len(list((tmp_path / "run").glob("step-*"))) == 0 or not (tmp_path / "run" / "step-00000004").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "no fourth checkpoint in four minutes"
            time.sleep(0.01)
            if any(int(p.name[5:13]) > 4 for p in (tmp_path / "run").glob("step-????????")):
                break
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = checkpoint.find(tmp_path / "run", "last")
    assert found.state["step"] >= 4
    found.build()
    found.optimizer()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = Trainer(configure("tiny", ["iterations=3", *FAST]), tmp_path / "run")
    with torch.no_grad():
        trainer.raw_model.decoder.logit.bias.fill_(float("nan"))
    with pytest.raises(
        OV2VSSError, match=r"the loss is nan at iteration 1, batch: train-\d{4}/\d{5}, train-\d{4}/\d{5};"
    ):
        trainer.fit()


def test_folder_errors_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(OV2VSSError, match="does not exist"):
        FolderVideos(tmp_path / "no", "train")
    with pytest.raises(OV2VSSError, match=r"has no train\.txt"):
        FolderVideos(tmp_path, "train")
    (tmp_path / "train.txt").write_text("clip")  # no trailing newline: the id is read whole
    with pytest.raises(OV2VSSError, match="clip/origin has no images"):
        FolderVideos(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    with pytest.raises(OV2VSSError, match="clip/origin has no images"):
        FolderVideos(tmp_path, "train")
    (tmp_path / "unseen.txt").write_text("moon\n")
    with pytest.raises(OV2VSSError, match="'moon' is not a line of classes.txt"):
        FolderVideos(tmp_path, "train")


def test_lite_backbone_takes_the_packaged_weights() -> None:
    """The package's tensors give the same features as timm's classifier network filled with them."""
    import timm

    from ov2vss.model.backbone import Backbone
    from ov2vss.train.weights import _lite0_file, _lite0_names, load_backbone_weights

    name = "tf_efficientnet_lite0"
    backbone = Backbone(name, (0.5,) * 3, (0.5,) * 3, True).eval()
    load_backbone_weights(backbone, name, "efficientnet-lite0")
    whole = timm.create_model(name).eval()
    whole.load_state_dict(_lite0_names(name, read_weights(_lite0_file()).tensors))
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        x, maps = whole.bn1(whole.conv_stem((image - 0.5) / 0.5)), []
        for stage in whole.blocks:
            x = stage(x)
            maps.append(x)
        expected = [maps[i] for i in (1, 2, 4, 6)]
        for got, want in zip(backbone(image), expected, strict=True):
            assert torch.allclose(got, want, atol=1e-5)
    with pytest.raises(OV2VSSError, match="is not EfficientNet-Lite0"):
        load_backbone_weights(
            Backbone("test_convnext", (0.5,) * 3, (0.5,) * 3, True), "test_convnext", "efficientnet-lite0"
        )


def test_state_json_is_readable(tmp_path: Path) -> None:
    _train(tmp_path / "run", 3)
    assert json.loads((tmp_path / "run" / "step-00000003" / "state.json").read_text())["step"] == 3
