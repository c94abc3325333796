"""The loss on neighbouring frames of film: nothing where the labels moved with the picture, and no gradient to the
past."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ov2vss.data.film import FilmPairs
from ov2vss.errors import OV2VSSError
from ov2vss.presets import configure
from ov2vss.train.consistency import consistency_loss, moved
from ov2vss.train.loop import Trainer
from ov2vss.train.preflight import check_settings
from ov2vss_runtime.stream.flow import places, sample
from tests.conftest import write_video
from tests.runtime.stream.test_propagation import picture


def film(path: Path) -> str:
    """Twelve frames of a picture that moves by four pixels a frame."""
    return str(write_video(path / "film.mp4", [picture(4 * t) for t in range(12)]))


def test_planes_are_moved_as_the_runtime_moves_them() -> None:
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((3, 9, 14)).astype(np.float32)
    flow = rng.uniform(-6, 6, (9, 14, 2)).astype(np.float32)
    found = moved(torch.from_numpy(planes)[None], torch.from_numpy(flow)[None])[0].numpy()
    for plane, want in zip(planes, found, strict=True):
        np.testing.assert_allclose(sample(plane, places(flow)), want, atol=0.02)  # OpenCV rounds places to 1/32


def test_what_moved_with_the_picture_costs_nothing_and_the_past_only_teaches() -> None:
    rng = np.random.default_rng(1)
    before = torch.from_numpy(rng.standard_normal((1, 4, 8, 12)).astype(np.float32)).requires_grad_()
    now = torch.roll(before.detach(), 2, 3).requires_grad_()
    flow, trust = torch.zeros(1, 8, 12, 2), torch.ones(1, 8, 12)
    flow[..., 0] = -2
    trust[..., :2] = 0
    assert consistency_loss(now, before, flow, trust).item() == pytest.approx(0, abs=1e-6)
    other = torch.zeros_like(now).requires_grad_()
    loss = consistency_loss(other, before, flow, trust)
    loss.backward()
    assert loss.item() > 0.05
    assert before.grad is None
    assert other.grad is not None
    assert not other.grad[..., :2].any()
    p = torch.softmax(before.detach(), 1)[..., :10]
    assert loss.item() == pytest.approx((p * (p.log() + np.log(4))).sum(1).mean().item(), rel=1e-4)


def test_pairs_of_film_have_the_motion_between_them(tmp_path: Path) -> None:
    pairs = FilmPairs([film(tmp_path)], (96, 160), (96, 128), seed=0)
    assert len(pairs) == 11
    item = pairs[3]
    assert item["frames"].shape == (2, 3, 96, 128)
    assert item["flow"].shape == (12, 16, 2)
    still = item["trust"][3:9, 3:13]
    assert (still > 0.3).float().mean() > 0.8
    assert item["flow"][3:9, 3:13, 0].abs().median().item() * 8 == pytest.approx(4, abs=0.7)
    for name, values in pairs.batch(2, 2).items():
        assert torch.equal(values[1], pairs[5][name])


def test_folders_in_the_layout_of_training_are_film_and_one_frame_is_not(tmp_path: Path) -> None:
    for name, count in (("drive", 3), ("photo", 1)):
        folder = tmp_path / "set" / "data" / name / "origin"
        folder.mkdir(parents=True)
        (tmp_path / "set" / "data" / name / "mask").mkdir()
        for t in range(count):
            cv2.imwrite(str(folder / f"{t:03d}.jpg"), picture(4 * t))
            cv2.imwrite(str(folder.parent / "mask" / f"{t:03d}.png"), np.ones((96, 160), np.uint8))
    (tmp_path / "set" / "train.txt").write_text("drive\nphoto\n")
    (tmp_path / "set" / "classes.txt").write_text("a\nb\n")
    assert len(FilmPairs([str(tmp_path / "set")], (96, 160), (96, 160), 0)) == 2
    (tmp_path / "set" / "train.txt").write_text("photo\n")
    with pytest.raises(OV2VSSError, match="no two frames that follow each other"):
        FilmPairs([str(tmp_path / "set")], (96, 160), (96, 160), 0)


SMALL = ["iterations=2", "per_frame_iterations=0", "batch=2", "size=64x96", "crop=64x96", "workers=0", "gap=1"]


def test_settings_of_the_past_are_not_ignored(tmp_path: Path) -> None:
    for wrong, message in (
        (["consistency=1"], "film and consistency go together"),
        (["film=a.mp4"], "film and consistency go together"),
        (["moving=0.3", "per_frame_iterations=2"], "moving is about clips"),
        (["degraded_targets=0.3", "per_frame_iterations=2"], "degraded_targets is about clips"),
    ):
        with pytest.raises(OV2VSSError, match=message):
            configure("tiny", [*SMALL, *wrong])
    with pytest.raises(OV2VSSError, match=r"film a.mp4 does not exist"):
        check_settings(configure("tiny", [*SMALL, "film=a.mp4", "consistency=1"]))


def test_a_training_with_film_moving_stills_and_worse_targets(tmp_path: Path) -> None:
    """End to end, and resumed to the same weights: every part is a function of the iteration."""
    own = ["moving=0.5", "degraded_targets=0.5", f"film={film(tmp_path)}", "consistency=0.5", "save_every=1"]
    config = configure("tiny", [*SMALL, *own])
    whole = Trainer(config, tmp_path / "whole")
    whole.fit()
    assert whole.parts_of_loss["consistency"] > 0
    first = Trainer(config, tmp_path / "parts")
    loss = first.fit

    class Stop(Exception):
        pass

    def stop(_iteration: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        loss(stop)
    again = Trainer(config, tmp_path / "parts", resume=True)
    again.fit()
    for name, value in whole.raw_model.state_dict().items():
        assert torch.equal(value, again.raw_model.state_dict()[name]), name
