"""The training loss (Eqs. 7 and 15)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ov2vss.model import Prediction
from ov2vss.model.stcf import upsample
from ov2vss_runtime.protocol import VOID


def loss_sum(prediction: Prediction, labels: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """Summed loss and the number of valid pixels; their quotient over the whole batch is the loss.

    Kept apart so that several processes or accumulated steps can divide by the global count.

    Args:
        prediction: logits at stride 8, upsampled here to the size of the labels.
        labels: uint8 ``[B, H, W]``, 255 void.
        alpha, beta: weights of the main and the auxiliary cross-entropy.
    """
    target = labels.long()
    size = labels.shape[-2:]

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(upsample(logits.float(), size), target, ignore_index=VOID, reduction="sum")

    total = alpha * cross_entropy(prediction.logits)
    if prediction.aux is not None and beta:
        total = total + beta * cross_entropy(prediction.aux)
    return total, (target != VOID).sum()
