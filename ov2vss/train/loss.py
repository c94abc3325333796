"""The training loss (Eqs. 7 and 15), and a term for models whose image encoder is trained (docs/decisions.md)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ov2vss.data.clips import ClipDataset
from ov2vss.data.label_tables import VOID
from ov2vss.data.source import CorruptFile
from ov2vss.model import Prediction
from ov2vss.model.stcf import upsample

BALANCE_FRAMES = 1000
"""Masks that the frequency of classes is counted on, evenly spread over a larger data set."""
TEMPERATURE = 0.07
"""Of the softmax over cosines in the dense loss."""


def loss_sum(
    prediction: Prediction, labels: Tensor, alpha: float, beta: float, gamma: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Loss summed over the valid pixels. Divided by their number (or weight) in the whole batch, over all processes and
    accumulated parts, it is the loss of a step.

    Args:
        prediction: logits at stride 8, upsampled here to the size of the labels.
        labels: uint8 ``[B, H, W]``, 255 void.
        alpha, beta: weights of the main and the auxiliary cross-entropy.
        gamma: weight of the dense loss: cross-entropy of ``cosine / TEMPERATURE`` between F^V and the class embeddings.
        weights: of the pixels of each label, float ``[256]``; None for 1.
    """
    target = labels.long()
    size = labels.shape[-2:]

    def cross_entropy(logits: Tensor) -> Tensor:
        weight = None if weights is None else weights[: logits.shape[1]]
        return F.cross_entropy(upsample(logits.float(), size), target, weight, ignore_index=VOID, reduction="sum")

    total = alpha * cross_entropy(prediction.logits)
    if prediction.aux is not None and beta:
        total = total + beta * cross_entropy(prediction.aux)
    if gamma:
        total = total + gamma * cross_entropy(prediction.volume / TEMPERATURE)
    return total


def class_weights(dataset: ClipDataset, classes: int, balance: float) -> Tensor:
    """Weight of a pixel by its label, float ``[256]``: ``(median frequency / frequency) ** balance``, 0 for void.

    Frequencies are shares of the labelled pixels. Classes that no mask shows have weight 1.
    """
    weights = torch.ones(256)
    weights[VOID] = 0
    if not balance:
        return weights
    counts = np.zeros(256, np.int64)
    step = -(-len(dataset.targets) // BALANCE_FRAMES)
    for video, index in dataset.targets[::step]:
        try:
            counts += np.bincount(dataset.table[dataset.videos.mask(video, index)].ravel(), minlength=256)
        except CorruptFile:
            if dataset.strict:
                raise
    frequency = counts[:classes] / max(1, counts[:classes].sum())
    shown = frequency > 0
    if shown.any():
        ratio = np.median(frequency[shown]) / frequency[shown]
        weights[:classes][torch.from_numpy(shown)] = torch.from_numpy(ratio**balance).float()
    return weights
