"""Presets against the paper's settings."""

from ov2vss.presets import PRESETS


def test_paper_presets() -> None:
    for name, backbone in (("ov2vss-r101", "resnet101"), ("ov2vss-pvt-b2", "pvt_v2_b2")):
        preset = PRESETS[name]
        assert (preset.model.backbone, preset.model.image_encoder, preset.model.text_encoder) == (
            backbone,
            "clip",
            "clip",
        )
        assert (preset.lr, preset.head_lr_factor, preset.weight_decay, preset.warmup) == (3e-6, 10.0, 1e-2, 1500)
        assert (preset.batch, preset.iterations, preset.poly_power, preset.crop) == (4, 100_000, 0.9, (480, 480))
        assert (preset.alpha, preset.beta, preset.gamma, preset.scale) == (1.0, 1.0, 0.0, (0.5, 2.0))
        assert preset.model.rfe_residual is False
        assert preset.prompt_sampling == 0
