"""The trained tiny model does its job, and says what the same weights do without a past."""

import json
from pathlib import Path

import pytest

from tests.conftest import TrainedRun, run_program


def test_tiny_learns_seen_and_unseen_compositions(trained: TrainedRun) -> None:
    scores, single = trained.report["test"], trained.report["test_per_frame"]
    assert scores["seen_miou"] >= 0.80
    assert scores["unseen_miou"] >= 0.40
    assert single["miou"] >= 0.70
    assert single["pacc"] != scores["pacc"]  # another use of the same weights, not the same scores printed twice


@pytest.mark.whole
def test_checkpoint_and_bundle_score_the_same(trained: TrainedRun, bundle: Path, tmp_path: Path) -> None:
    """ov2vss-eval of the torch model and of the exported graphs, on all test frames."""
    scores = {}
    for name, args in (("ckpt", ["--ckpt", trained.folder]), ("bundle", ["--bundle", bundle, "--gap", "3"])):
        done = run_program("ov2vss-eval", *args, "--data", "shapes", "--json", tmp_path / f"{name}.json")
        assert done.returncode == 0, done.stderr
        scores[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert abs(scores["ckpt"]["miou"] - trained.report["test"]["miou"]) < 1e-9
    for key in ("miou", "fwiou", "macc", "pacc", "vc8", "vc16"):
        assert abs(scores["ckpt"][key] - scores["bundle"][key]) < 5e-4, key
    assert 0 < scores["ckpt"]["vc16"] <= scores["ckpt"]["vc8"] < 1


def test_stored_predictions_score_like_the_model_that_made_them(tmp_path: Path) -> None:
    """--pred: perfect predictions score 1; a constant one scores what a hand count gives."""
    import cv2
    import numpy as np

    from ov2vss.data import ShapesVideos

    videos = ShapesVideos("val")
    background = total = 0
    for v, name in enumerate(videos.videos):
        for kind in ("perfect", "constant"):
            (tmp_path / kind / name).mkdir(parents=True)
        for i in range(videos.length(v)):
            mask = videos.mask(v, i)
            background, total = background + int((mask == 1).sum()), total + mask.size
            cv2.imwrite(str(tmp_path / "perfect" / name / f"{i:05d}.png"), mask)
            cv2.imwrite(str(tmp_path / "constant" / name / f"{i:05d}.png"), np.ones_like(mask))
    results = {}
    for kind in ("perfect", "constant"):
        done = run_program(
            "ov2vss-eval", "--pred", tmp_path / kind, "--data", "shapes", "--split", "val", "--json", "-"
        )
        assert done.returncode == 0, done.stderr
        results[kind] = json.loads(done.stdout.splitlines()[-1])
    assert results["perfect"]["miou"] == 1.0
    assert results["perfect"]["vc8"] == 1.0
    assert abs(results["constant"]["pacc"] - background / total) < 1e-12
    assert results["constant"]["per_class"]["background"] == results["constant"]["pacc"]
