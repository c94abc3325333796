"""Dense CLIP features by recipe: against the code of the methods' authors, and where that code gives nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.numpy import load_file

from ov2vss.clip import build_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS, ModelConfig
from ov2vss.model.dense import RECIPES, build_dense
from ov2vss.model.dense.calibrated import CalibratedDense
from ov2vss.model.dense.exact import Fill, Outliers
from ov2vss.model.dense.tower import check_tower, fitting_models
from ov2vss.model.training_free import TrainingFree
from tests.conftest import clip_config, shuffled
from tests.model import reference_tower as reference

STORED = load_file(Path(__file__).parent / "references" / "dense.safetensors")
BOUND = 2e-6


def features(recipe: str, size: tuple[int, int], share: float | None = None) -> torch.Tensor:
    """``[n, D]`` of our recipe on the reference's tower and image, with the authors' position embedding."""
    weights = reference.tower_weights()
    tower = reference.open_clip_tower(weights if share is None else reference.with_share(weights, share))
    grid = (size[0] // reference.PATCH, size[1] // reference.PATCH)
    dense = build_dense(tower, recipe, grid[0] * grid[1], (0.0,) * 3, (1.0,) * 3)
    assert dense.grid(*size) == grid
    dense.prepared[grid] = reference.authors_positions(tower.positional_embedding.detach(), grid)
    with torch.no_grad():
        return dense(reference.image(size), [])[0].flatten(1).T


def relative_error(found: torch.Tensor, stored: np.ndarray) -> float:
    sampled = found.reshape(-1)[:: reference.STEP].numpy()
    assert sampled.shape == stored.shape
    return float(np.linalg.norm(sampled - stored) / np.linalg.norm(stored))


@pytest.mark.parametrize("size", reference.SIZES)
def test_neighbour_equals_the_authors_code(size: tuple[int, int]) -> None:
    found = features("neighbour", size)
    assert relative_error(found, STORED[f"neighbour/{size[0]}x{size[1]}"]) <= BOUND


@pytest.mark.parametrize("size", reference.SIZES)
@pytest.mark.parametrize("outliers", reference.COUNTS)
def test_calibrated_equals_the_authors_code(
    size: tuple[int, int], outliers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    forward = Outliers.forward

    def counted(self: Outliers, attention: torch.Tensor) -> torch.Tensor:
        found = forward(self, attention)
        seen.append(float(found.sum()))
        return found

    monkeypatch.setattr(Outliers, "forward", counted)
    key = f"calibrated/{size[0]}x{size[1]}/{outliers}"
    found = features("calibrated", size, float(STORED[f"{key}/share"][0]))
    assert seen == [outliers]
    assert relative_error(found, STORED[key]) <= BOUND


def test_outliers_are_the_strongest_ten_that_beat_their_own_attention() -> None:
    rng = np.random.default_rng(0)
    attention = torch.from_numpy(rng.random((1, 2, 41, 41)).astype(np.float32))
    mean = attention[0].mean(0).numpy()
    salient = [p for p in range(40) if 1.5 * mean[0, 1 + p] > mean[1 + p, 1 + p]]
    assert len(salient) > 10
    expected = sorted(salient, key=lambda p: -mean[0, 1 + p])[:10]
    assert set(np.flatnonzero(Outliers(10, 1.5)(attention)[0])) == set(expected)


def test_an_outlier_becomes_the_mean_of_its_clean_neighbours_and_stays_where_there_are_none() -> None:
    grid = (4, 5)
    x = torch.arange(20.0).view(1, 20, 1) ** 2
    outliers = torch.zeros(1, 20)
    outliers[0, [0, 1, 5, 6]] = 1  # a clump in the corner: the corner itself has no clean neighbour
    filled = Fill()(x, outliers, grid)[0, :, 0]
    values = x[0, :, 0]
    assert filled[0] == values[0]
    assert filled[1] == pytest.approx(float(values[[2, 7]].mean()))
    assert filled[5] == pytest.approx(float(values[[10, 11]].mean()))
    assert filled[6] == pytest.approx(float(values[[2, 7, 10, 11, 12]].mean()))
    assert torch.equal(filled[7:], values[7:])


def test_a_clump_of_outliers_at_the_border_gives_finite_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def clump(self: Outliers, attention: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(attention), 14, 14)
        found[:, :3, :3] = 1
        return found.flatten(1)

    monkeypatch.setattr(Outliers, "forward", clump)
    found = features("calibrated", (224, 224), 0.5)
    assert torch.isfinite(found).all()
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_frames_at_once_are_each_as_alone(small_clip: str, recipe: str) -> None:
    dense = build_dense(shuffled(build_clip(small_clip, "")).visual, recipe, 24, (0.5,) * 3, (0.25,) * 3)
    frames = torch.rand(2, 3, 32, 48)
    together = dense(frames, [])
    for number in range(2):
        assert torch.allclose(together[number], dense(frames[number : number + 1], [])[0], atol=2e-6)


def test_other_depths_are_scaled_and_said(small_clip: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ov2vss"):
        dense = CalibratedDense(build_clip(small_clip, "").visual, 24, (0.5,) * 3, (0.25,) * 3)
    assert "made for 12 blocks, this tower has 3" in caplog.text
    assert (dense.shape, dense.content, max(dense.middle)) == (2, 1, 2)
    deep = [type(dense.visual.transformer.resblocks[0])(32, 2) for _ in range(24)]
    dense.visual.transformer.resblocks = torch.nn.ModuleList(deep)
    dense = CalibratedDense(dense.visual, 24, (0.5,) * 3, (0.25,) * 3)
    assert (dense.shape, dense.content, dense.middle) == (18, 8, [8, 10, 12, 14, 16, 18, 20])
    with torch.no_grad():
        assert torch.isfinite(dense(torch.rand(1, 3, 32, 48), [])).all()


@pytest.mark.parametrize(
    ("model", "named"),
    [("RN50", "ModifiedResNet"), ("coca_ViT-B-32", "attention pooling"), ("convnext_base", "Timm")],
)
def test_towers_that_do_not_fit_are_refused_by_name_with_those_that_do(model: str, named: str) -> None:
    config = open_clip.get_model_config(model)
    with torch.device("meta"):
        visual = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])
    with pytest.raises(OV2VSSError) as refused:
        check_tower(visual)
    assert named in str(refused.value)
    assert "ViT-B-16" in str(refused.value)


def test_the_list_of_towers_that_fit_is_true() -> None:
    names = fitting_models()
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14"} <= set(names)
    assert not any("SigLIP" in n or n.startswith(("RN", "coca")) for n in names)
    for name in names:
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            check_tower(open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"]))


def test_trained_presets_take_a_recipe_and_the_paper_keeps_its_own(config, small_clip: str) -> None:
    small = clip_config(config, small_clip)
    assert small.dense == "value"
    frame = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    found = {}
    for recipe in RECIPES:
        torch.manual_seed(0)
        model = OV2VSS(small.model_copy(update={"dense": recipe})).eval()
        assert model.image_encoder.recipe == recipe
        with torch.no_grad():
            found[recipe] = model.encode(frame).dense
    assert len({tuple(x.flatten()[:8].tolist()) for x in found.values()}) == len(RECIPES)


@pytest.mark.parametrize("temperature", [20.0, 40.0, 100.0])
def test_labels_do_not_depend_on_the_temperature_and_confidence_does(temperature: float, small_clip: str) -> None:
    visual = shuffled(build_clip(small_clip, "").visual)
    model = TrainingFree(build_dense(visual, "neighbour", 6, (0.5,) * 3, (0.5,) * 3), (16, 24), temperature)
    generator = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(5, model.width, generator=generator), dim=1)
    with torch.no_grad():
        dense, _ = model.encode(torch.randint(0, 256, (1, 16, 24, 3), dtype=torch.uint8, generator=generator))
        logits = model.decode(dense, words).numpy()
    cosines = np.einsum("nd,dhw->nhw", words.numpy(), dense.numpy())
    assert np.abs(logits - temperature * cosines).max() <= 1e-5 * temperature
    assert np.array_equal(logits.argmax(0), cosines.argmax(0))
    best = np.exp(logits - logits.max(0))
    share = (1 / best.sum(0)).mean()
    flat = np.exp(10 * (cosines - cosines.max(0)))
    assert share > (1 / flat.sum(0)).mean()


def test_a_recipe_is_refused_where_no_frozen_clip_would_look_at_it() -> None:
    assert ModelConfig(image_encoder="clip", dense="neighbour").dense == "neighbour"
    with pytest.raises(ValueError, match=r"dense=neighbour is about a frozen CLIP: it needs image_encoder=clip"):
        ModelConfig(dense="neighbour")
