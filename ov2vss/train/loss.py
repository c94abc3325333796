"""The training loss (Eqs. 7 and 15), and a term for models whose image encoder is trained (docs/decisions.md)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ov2vss.model import Prediction
from ov2vss.model.stcf import upsample
from ov2vss_runtime.protocol import VOID

TEMPERATURE = 0.07
"""Of the softmax over cosines in the dense loss."""


def loss_sum(prediction: Prediction, labels: Tensor, alpha: float, beta: float, gamma: float = 0.0) -> Tensor:
    """Loss summed over the valid pixels. Divided by their number in the whole batch, over all processes and accumulated
    parts, it is the loss of a step.

    Args:
        prediction: logits at stride 8, upsampled here to the size of the labels.
        labels: uint8 ``[B, H, W]``, 255 void.
        alpha, beta: weights of the main and the auxiliary cross-entropy.
        gamma: weight of the dense loss: cross-entropy of ``cosine / TEMPERATURE`` between F^V and the class embeddings.
    """
    target = labels.long()
    size = labels.shape[-2:]

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(upsample(logits.float(), size), target, ignore_index=VOID, reduction="sum")

    total = alpha * cross_entropy(prediction.logits)
    if prediction.aux is not None and beta:
        total = total + beta * cross_entropy(prediction.aux)
    if gamma:
        total = total + gamma * cross_entropy(prediction.volume / TEMPERATURE)
    return total
