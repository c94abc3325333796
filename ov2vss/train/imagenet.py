"""What an ImageNet classifier says at each place of a picture, as a dense teacher (the idea of CoNSE)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.nn.functional as F
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from ov2vss.data.crop_cache import CropCache
from ov2vss.data.mixed import GRID
from ov2vss.errors import OV2VSSError
from ov2vss.text import TextEncoder
from ov2vss.train.weights import _lite0_file, _lite0_names
from ov2vss.weights_file import read_weights
from ov2vss_runtime.progress import Progress

TOP = 5
NETWORK = "tf_efficientnet_lite0"
TEMPERATURE = 0.07


def class_names() -> list[str]:
    """The first lemma of each of ImageNet's thousand classes, in the order of the classifier."""
    info = ImageNetInfo()
    return [info.index_to_description(i, detailed=False).split(",")[0].strip() for i in range(1000)]


class ImageNetGrid:
    """Top classes of every 32 x 32 cell of every cached picture: ids ``[cells, 5]`` and their probabilities.

    The classifier behind the average over places is applied to each place alone. Computed once and kept beside the
    cache.
    """

    def __init__(self, cache: CropCache) -> None:
        file = cache.folder / "imagenet.npz"
        if not file.is_file() or len(np.load(file)["first"]) != len(cache) + 1:
            self._write(file, cache)
        with np.load(file) as stored:
            self.first, self.ids, self.shares = stored["first"], stored["ids"], stored["shares"]

    @staticmethod
    @torch.inference_mode()
    def _write(file: Path, cache: CropCache) -> None:
        network = timm.create_model(NETWORK).eval()
        path = _lite0_file()
        tensors = read_weights(path, "backbone weights", "backbone_weights").tensors
        network.load_state_dict(_lite0_names(NETWORK, tensors))
        network = network.to(memory_format=torch.channels_last)
        first, ids, shares = [0], [], []
        with Progress(len(cache), "imagenet", "picture") as bar:
            for i in range(len(cache)):
                rgb, _ = cache.picture(i)
                h, w = (-(-side // GRID) * GRID for side in rgb.shape[:2])
                padded = np.pad(rgb, ((0, h - rgb.shape[0]), (0, w - rgb.shape[1]), (0, 0)), mode="edge")
                x = (torch.from_numpy(padded).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
                maps = network.forward_features(x.to(memory_format=torch.channels_last))
                # A place sees little: its neighbourhood is averaged in, as the classifier expects averages.
                maps = F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
                found = network.classifier(maps.flatten(2)[0].T).softmax(-1).topk(TOP)
                ids.append(found.indices.numpy().astype(np.int16))
                shares.append(found.values.numpy().astype(np.float16))
                first.append(first[-1] + len(ids[-1]))
                bar.update()
        np.savez(file, first=np.array(first), ids=np.concatenate(ids), shares=np.concatenate(shares))

    def look_up(self, picture: int, cells: npt.NDArray[np.int32]) -> tuple[npt.NDArray, npt.NDArray]:
        """Ids and probabilities ``[h, w, 5]`` of the cells of a crop; probabilities are 0 outside."""
        at = self.first[picture] + np.maximum(cells, 0)
        return self.ids[at], self.shares[at] * (cells >= 0)[..., None]


def name_embeddings(encoder: TextEncoder) -> Tensor:
    """Unit embeddings ``[1000, D]`` of the class names."""
    if encoder.name not in ("minilm", "clip"):
        raise OV2VSSError("imagenet_weight needs a text encoder that knows words", "set imagenet_weight=0")
    return encoder.encode(class_names())


def imagenet_loss(dense: Tensor, ids: Tensor, shares: Tensor, names: Tensor, least: float) -> Tensor:
    """Cross-entropy between the classifier's top classes and cosines of the dense features with their names, mean over
    the places where the classifier is surer than ``least``.

    Args:
        dense: unit ``[B, D, h, w]``.
        ids, shares: ``[B, h, w, 5]``.
        names: unit ``[1000, D]``.
        least: lowest probability of the first class.
    """
    at = shares[..., 0] >= least
    if not bool(at.any()):
        return dense.sum() * 0
    scores = (dense.permute(0, 2, 3, 1)[at] @ names.T / TEMPERATURE).log_softmax(-1)
    share = shares[at]
    share = share / share.sum(-1, keepdim=True)
    weight = shares[at][:, 0]
    each = -(share * scores.gather(1, ids[at].long())).sum(-1)
    return (each * weight).sum() / weight.sum()
