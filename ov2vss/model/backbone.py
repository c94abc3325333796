"""The image backbone: any timm network with levels at strides 4, 8, 16 and 32."""

from __future__ import annotations

from difflib import get_close_matches

import timm
import torch
from torch import Tensor, nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.config import STRIDES


class Backbone(nn.Module):
    """Raw feature maps of one frame at the four strides.

    Args:
        name: timm model name.
        mean, std: normalisation of RGB values in [0, 1].
        freeze_norm: keep BatchNorm in evaluation mode and its affine parameters without gradient.
    """

    def __init__(self, name: str, mean: tuple[float, ...], std: tuple[float, ...], freeze_norm: bool) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = ", ".join(get_close_matches(name, timm.list_models(), 4)) or "resnet50, tf_efficientnet_lite0"
            raise OV2VSSError(
                f"backbone {name!r} is not a timm model", f"take one that timm knows, for example: {near}"
            )
        probe = timm.create_model(name, features_only=True)
        reductions = probe.feature_info.reduction()
        if any(s not in reductions for s in STRIDES):
            raise OV2VSSError(
                f"backbone {name!r} has levels at strides {reductions}, but 4, 8, 16 and 32 are needed",
                "choose a backbone with four pyramid levels, for example resnet50 or tf_efficientnet_lite0",
            )
        self.indices = tuple(len(reductions) - 1 - reductions[::-1].index(s) for s in STRIDES)
        self.net = timm.create_model(name, features_only=True, out_indices=self.indices)
        self.channels: list[int] = self.net.feature_info.channels()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.freeze_norm = freeze_norm
        if freeze_norm:
            for module in self._batch_norms():
                module.requires_grad_(False)

    def _batch_norms(self) -> list[nn.Module]:
        return [m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.freeze_norm:
            for module in self._batch_norms():
                module.eval()
        return self

    def forward(self, frame: Tensor) -> list[Tensor]:
        """RGB in [0, 1], ``[B, 3, H, W]`` -> four maps ``[B, C_l, H/s, W/s]``, s = 4, 8, 16, 32."""
        return self.net((frame - self.mean) / self.std)
