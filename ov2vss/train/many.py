"""Training on several partly labelled sets at once, a frame at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ov2vss import checkpoint
from ov2vss.clip_source import ClipSource
from ov2vss.data import open_files
from ov2vss.data.clips import Steps
from ov2vss.data.concepts import Concepts, teacher_names
from ov2vss.data.crop_cache import CropCache
from ov2vss.data.mixed import MixedCrops, MovingCrops
from ov2vss.data.relations import Relations
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS
from ov2vss.model.stcf import upsample
from ov2vss.presets import TrainConfig
from ov2vss.text import TextEncoder, build_text_encoder
from ov2vss.train.imagenet import ImageNetGrid, imagenet_loss, name_embeddings
from ov2vss.train.loop import Trainer, _one_thread
from ov2vss.train.loss import TEMPERATURE
from ov2vss.train.mixed_vocabulary import MixedVocabulary
from ov2vss.train.partial import partial_cross_entropy
from ov2vss.train.preflight import check_networks

HEAVIEST, LIGHTEST = 4.0, 0.4
"""Limits of the weight of a class."""


class MixedTrainer(Trainer):
    """A :class:`Trainer` over ``config.data`` and ``config.more_data``; its arguments are the same.

    The loss of a pixel goes over the words that its set can tell apart and words that it is known not to be; the dense
    loss over the names of all sets. Iterations are of single frames, references and distant frame the frame itself, but
    for a share ``moving`` of them, which are of clips made of the pictures.
    """

    def __init__(
        self, config: TrainConfig, out: Path, resume: bool = False, strict: bool = False, download: bool = False
    ) -> None:
        self.config, self.out, self.strict, self.start = config, out, strict, 0
        if config.per_frame_iterations < config.iterations:
            raise OV2VSSError("several sets are trained a frame at a time", "set per_frame_iterations to iterations")
        if config.film:
            raise OV2VSSError("film is trained on beside one set", "leave out film and consistency")
        resumed = self._begin(resume)
        if self.fabric.world_size > 1 or config.accumulate > 1:
            raise OV2VSSError("several sets are trained by one process, in one part", "leave out torchrun, accumulate")
        check_networks(config, download)
        roots = [config.data, *config.more_data]
        sets = [open_files(root, "train") for root in roots]
        relations = Relations.read(config.relations) if config.relations else Relations(frozenset(), frozenset())
        self.concepts = Concepts(sets, teacher_names(roots), relations)
        self.void = config.void or ("unknown",) * len(roots)
        self.cache = CropCache(Path(config.cache) if config.cache else out / "cache", roots)
        self.datasets = {True: self._dataset(len(roots))}
        source = ClipSource(config.clip_weights, download)
        self.encoder: TextEncoder = build_text_encoder(config.model, source).to(self.fabric.device)
        self.words = MixedVocabulary(
            self.encoder,
            self.concepts,
            config.model,
            config.wordings,
            config.negatives,
            config.prompt_sampling,
            config.text_mixing,
        )
        self.grid = ImageNetGrid(self.cache) if config.imagenet_weight else None
        self.names = name_embeddings(self.encoder).to(self.fabric.device) if self.grid is not None else None
        self.run = checkpoint.RunConfig(
            train=config,
            classes=list(dict.fromkeys(n for s in sets for n in s.classes.names)),
            text_encoder_sha256=self.encoder.identity(),
        )
        self.skipped = Counter()
        self.parts_of_loss: dict[str, float] = {}
        self._take_up(OV2VSS(config.model), resumed, download)

    def _dataset(self, count: int) -> MixedCrops:
        config = self.config
        return MixedCrops(
            self.cache,
            self.concepts,
            config.shares or (1.0,) * count,
            config.size,
            config.crop,
            config.scale,
            config.seed,
            [self._class_weights(number) for number in range(count)],
            config.teacher_weight,
            config.void_weight,
            [v == "whole" for v in self.void],
            config.photometric,
            MovingCrops(config.moving, config.batch, config.model.references, config.model.gap, config.degraded_targets)
            if config.moving
            else None,
        )

    def _class_weights(self, number: int) -> npt.NDArray[np.float32]:
        """Weight of a pixel by its raw id, as :func:`ov2vss.train.loss.class_weights`, within limits."""
        counts = np.zeros(256, np.int64)
        members = [i for i, p in enumerate(self.cache.places) if p.number == number]
        for i in members[:: max(1, len(members) // 300)]:
            counts += np.bincount(self.cache.picture(i)[1][::4, ::4, 0].ravel(), minlength=256)
        weights = np.ones(256, np.float32)
        found = counts[1 : len(self.concepts.own[number]) + 1]
        shown = found > 0
        if shown.any():
            ratio = (np.median(found[shown]) / np.maximum(found, 1)) ** self.config.class_balance
            weights[1 : len(found) + 1] = np.where(shown, np.clip(ratio, LIGHTEST, HEAVIEST), 1)
        return weights

    def _loader(self, single: bool, start: int, stop: int) -> DataLoader:
        workers = self.config.workers
        loader = DataLoader(
            self.datasets[True],
            self.config.batch,
            sampler=Steps(start, stop, self.config.batch),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_one_thread,
        )
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _iterate(self, iteration: int, parts: list[dict[str, Any]], single: bool) -> float:
        """One step of the optimizer."""
        config, fabric, (part,) = self.config, self.fabric, parts
        self._set_rates(iteration)
        rng = np.random.default_rng([config.seed, 1, iteration])
        every, text, tables, chosen = self._words(part, rng)
        self.optimizer.zero_grad(set_to_none=True)
        if "past" in part:
            clip = torch.cat([part["past"], part["frame"][:, None]], 1)
            prediction, dense = self.model.forward_clip(clip, part["distant"], text, config.reference_grad)
        else:
            prediction, dense = self.model.forward_words(part["frame"], text)
        rows, weight = part["rows"], part["weight"]
        main, mass = partial_cross_entropy(upsample(prediction.logits.float(), rows.shape[-2:]), rows, weight, chosen)
        loss = config.alpha * main / mass.clamp(min=1e-6)
        self.parts_of_loss = {"main": loss.item()}
        dense = dense.float()
        if config.gamma:
            volume = torch.einsum("cd,bdhw->bchw", every, dense) / TEMPERATURE
            half = rows[:, ::2, ::2]
            total, mass = partial_cross_entropy(upsample(volume, half.shape[-2:]), half, weight[:, ::2, ::2], tables)
            loss = loss + (extra := config.gamma * total / mass.clamp(min=1e-6))
            self.parts_of_loss["dense"] = extra.item()
        if self.grid is not None:
            found = [
                self.grid.look_up(int(p), c.cpu().numpy()) for p, c in zip(part["picture"], part["cells"], strict=True)
            ]
            ids, shares = (torch.from_numpy(np.stack(each)).to(fabric.device) for each in zip(*found, strict=True))
            extra = imagenet_loss(dense, ids, shares.float(), self.names, config.imagenet_least)
            loss = loss + config.imagenet_weight * extra
            self.parts_of_loss["imagenet"] = extra.item()
        fabric.backward(loss)
        value = float(loss.detach())
        self._update(iteration, value, True)
        return value

    def _words(self, part: dict[str, Any], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embeddings of all concepts ``[C, D]`` and of each crop's words ``[B, K, D]``; what each kind of pixel says
        about all concepts ``[B, C + 1, C]`` and about the crop's words ``[B, C + 1, K]``."""
        config, total = self.config, len(self.concepts)
        every, others = self.words.draw(rng), self.words.negatives(rng)
        tables, texts, chosen = [], [], []
        for rows, number in zip(part["rows"].cpu().numpy(), part["number"].tolist(), strict=True):
            shown = [k for k in np.unique(rows) if 0 <= k < total and k in set(self.concepts.own[number])]
            table = self.concepts.table(number, shown, self.void[number])
            take = self.words.choose(rng, number, rows, min(config.words, total))
            beside = np.full((total + 1, len(others)), -1, np.int8)
            beside[total] = 1  # what a void pixel is, nobody knows
            tables.append(torch.from_numpy(table))
            chosen.append(torch.from_numpy(np.concatenate([table[:, take], beside], 1)))
            texts.append(torch.cat([every[torch.from_numpy(take)], others]))
        device = self.fabric.device
        return (
            every.to(device),
            torch.stack(texts).to(device),
            torch.stack(tables).to(device),
            torch.stack(chosen).to(device),
        )
