"""The training loop."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ov2vss import checkpoint
from ov2vss.checkpoint import Checkpoint
from ov2vss.clip_source import ClipSource
from ov2vss.data import open_videos
from ov2vss.data.clips import ClipDataset, ClipSpec, Steps, collate
from ov2vss.data.film import FilmPairs
from ov2vss.data.label_tables import label_table
from ov2vss.data.moving import MovingStills
from ov2vss.errors import OV2VSSError
from ov2vss.licenses import LICENSE, carry_license
from ov2vss.model import OV2VSS, Prediction
from ov2vss.model.image_encoder import load_image_encoder
from ov2vss.presets import TrainConfig
from ov2vss.text import TextEncoder, build_text_encoder
from ov2vss.train.consistency import consistency_loss
from ov2vss.train.device import make_fabric
from ov2vss.train.log import CsvLog, no_log
from ov2vss.train.loss import class_weights, loss_sum
from ov2vss.train.preflight import SOURCES, check_networks
from ov2vss.train.schedule import learning_rate_factor, parameter_groups
from ov2vss.train.start import load_start
from ov2vss.train.validate import validate
from ov2vss.train.vocabulary import TrainingVocabulary
from ov2vss.train.weights import load_backbone_weights
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.progress import Progress

log = logging.getLogger("ov2vss")
LOG_EVERY = 10
MORE_FRAMES = 3
"""Frames of a clip made of a still beyond those of its references: there is somewhere for its distant frame."""


class Trainer:
    """One run: its data, model and optimizer, and the loop over iterations.

    Args:
        config: the run; with an existing checkpoint in ``out`` and ``resume``, it must be the run's own, but for the
            number of iterations.
        out: run folder.
        resume: go on from the last checkpoint in ``out``.
        strict: stop at a corrupt image or mask instead of drawing another sample.
        download: allow weights of the backbone and of CLIP to be fetched.
    """

    def __init__(
        self, config: TrainConfig, out: Path, resume: bool = False, strict: bool = False, download: bool = False
    ) -> None:
        self.config, self.out, self.strict = config, out, strict
        self.start = 0
        resumed = self._begin(resume)
        check_networks(config, download)
        videos = open_videos(config.data, "train", cache=True, stills=config.stills, hold_out=config.holds_out)
        hidden = videos.unseen if config.holds_out else []
        if config.holds_out and not hidden:
            log.warning("%s lists no unseen classes (unseen.txt): all its classes are trained", config.data)
        self.trained = [k for k in range(len(videos.classes)) if k not in hidden]
        table = label_table(len(videos.classes), self.trained)
        red, green, blue = config.model.mean
        spec = ClipSpec(
            config.size,
            config.crop,
            config.scale,
            config.model.references,
            config.gap,
            config.reverse,
            config.flip,
            config.photometric,
            config.labelled_frames,
            (round(255 * red), round(255 * green), round(255 * blue)),
            config.model.gap,
        )
        covered = hidden if config.mask_unseen_pixels else []
        whole_clip = config.model.references * config.model.gap + 1
        moving = MovingStills(videos, whole_clip + MORE_FRAMES, seed=config.seed) if config.moving else None
        self.datasets = {
            single: ClipDataset(
                videos,
                table,
                spec,
                config.seed,
                single,
                covered,
                strict,
                moving,
                config.moving,
                config.degraded_targets,
            )
            for single in (True, False)
        }
        if not len(self.datasets[True]):
            raise OV2VSSError(f"no frame of {config.data} has a mask", "put PNG masks into data/<video>/mask")
        if config.validate_every:
            open_videos(config.data, "val")  # a missing split is found now, not at the first validation
        self.weights = class_weights(self.datasets[True], len(self.trained), config.class_balance).to(
            self.fabric.device
        )
        self.skipped: Counter[str] = Counter()
        self.parts_of_loss: dict[str, float] = {}
        self.film: FilmPairs | None = None
        if config.film:
            if self.fabric.world_size > 1:
                raise OV2VSSError("film is trained on by one process", "leave out torchrun, or film and consistency")
            self.film = FilmPairs(config.film, config.size, config.crop, config.seed)
        source = ClipSource(config.clip_weights, download)
        self.encoder: TextEncoder = build_text_encoder(config.model, source).to(self.fabric.device)
        seen = type(videos.classes)(tuple(videos.classes.entries[k] for k in self.trained))
        self.vocabulary = TrainingVocabulary(
            self.encoder,
            seen,
            config.model,
            config.wordings,
            config.negatives,
            config.prompt_sampling,
            config.text_mixing,
        )

        model = OV2VSS(config.model, aux_classes=len(self.trained))
        load_image_encoder(model.image_encoder, config.model, source)
        self.run = checkpoint.RunConfig(
            train=config,
            classes=[", ".join(entry) for entry in videos.classes.entries],
            unseen=[videos.classes.names[k] for k in hidden],
            text_encoder_sha256=self.encoder.identity(),
            image_encoder_sha256=checkpoint.frozen_sha256(model.image_encoder),
        )
        self._take_up(model, resumed, download)

    def _begin(self, resume: bool) -> Checkpoint | None:
        """The device, the parts of a batch and the seed; the checkpoint that the run goes on from, if there is one."""
        config, out = self.config, self.out
        resumed = checkpoint.find(out, "last") if resume else None
        if resumed is not None and resumed.run.train.model_copy(update={"iterations": config.iterations}) != config:
            raise OV2VSSError(f"{out} was trained with other settings", "resume with --resume and --out alone")
        self.fabric = make_fabric(config)
        self.fabric.launch()
        parts = self.fabric.world_size * config.accumulate
        if config.batch % parts:
            raise OV2VSSError(
                f"batch={config.batch} cannot be divided over {self.fabric.world_size} processes and "
                f"{config.accumulate} accumulated parts",
                f"set batch to a multiple of {parts}",
            )
        self.part = config.batch // parts
        self.fabric.seed_everything(config.seed, verbose=False)
        return resumed

    def _take_up(self, model: OV2VSS, resumed: Checkpoint | None, download: bool) -> None:
        """Fill the model with the weights it starts or goes on with, and make its optimizer."""
        config, out = self.config, self.out
        if resumed is not None and resumed.run.model_copy(update={"train": config}) != self.run:
            raise OV2VSSError(
                f"{out} was trained with other classes or other weights of a frozen encoder (config.json differs)",
                "give the data and the weights of that run",
            )
        if resumed is None and config.init:
            load_start(model, config, self.run.text_encoder_sha256)
        elif resumed is None:
            load_backbone_weights(model.backbone, config.model.backbone, config.backbone_weights, download)
        optimizer = torch.optim.AdamW(parameter_groups(model, config), betas=(0.9, 0.999))
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if resumed is not None:
            model.load_trained_state(resumed.weights())
            checkpoint.restore_optimizer(optimizer, resumed.optimizer())
            self.start = resumed.state["step"]
        model = model.to(memory_format=torch.channels_last)
        self.raw_model = model
        self.model, self.optimizer = self.fabric.setup(model, optimizer)
        self.model.mark_forward_method("forward_single")
        self.model.mark_forward_method("forward_words")
        self.model.mark_forward_method("forward_clip")
        if resumed is not None and self.scaler is not None:
            self.scaler.load_state_dict(resumed.state["scaler"])

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of fp16 training."""
        return getattr(self.fabric._precision, "scaler", None)

    def fit(self, on_checkpoint: Callable[[int], None] | None = None) -> None:
        """Train to the last iteration, saving checkpoints on the way."""
        config, first = self.config, self.fabric.is_global_zero
        if first:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / "config.json", self.run.model_dump(mode="json"))
            for origin in carry_license(self.out, self._origins()):
                log.info("the licence of %s goes with this run (%s)", origin, LICENSE)
        self.model.train()
        bar = Progress(config.iterations, "train", "it", self.start, show=first, leave=True)
        with bar, CsvLog(self.out / "log.csv", self.start) if first else nullcontext(no_log) as write:
            iteration = self.start
            while iteration < config.iterations:
                single = iteration < config.per_frame_iterations
                stop = min(config.per_frame_iterations, config.iterations) if single else config.iterations
                parts = iter(self._loader(single, iteration, stop))
                while iteration < stop:
                    began = time.perf_counter()
                    loss = self._iterate(iteration, [next(parts) for _ in range(config.accumulate)], single)
                    iteration += 1
                    logged = iteration % LOG_EVERY == 0 or iteration == config.iterations
                    bar.update(f"loss {loss:.3f}" if logged else "")
                    if logged:
                        rate = self.optimizer.param_groups[0]["lr"]
                        write(iteration, loss, rate, time.perf_counter() - began)
                    if iteration % config.save_every == 0 or iteration == config.iterations:
                        self._save(iteration)
                        if on_checkpoint is not None:
                            on_checkpoint(iteration)
        if self.skipped:
            log.warning("%d samples were replaced because of %d corrupt files", self.skipped.total(), len(self.skipped))

    def _origins(self) -> list[Path]:
        """Files and runs whose weights this training starts from or keeps in its model."""
        config = self.config
        start = config.init or (config.backbone_weights if config.backbone_weights not in SOURCES else "")
        return [Path(name) for name in (start, config.clip_weights) if name and Path(name).exists()]

    def _loader(self, single: bool, start: int, stop: int) -> DataLoader:
        """Batches of this process, one per accumulated part."""
        config, workers = self.config, self.config.workers
        loader = DataLoader(
            self.datasets[single],
            self.part,
            sampler=Steps(
                start, stop, config.batch, config.accumulate, self.fabric.world_size, self.fabric.global_rank
            ),
            num_workers=workers,
            collate_fn=collate,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_one_thread,
        )
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _iterate(self, iteration: int, parts: list[dict[str, Any]], single: bool) -> float:
        """One step of the optimizer; the loss is the mean over all valid pixels of all parts and processes."""
        config, fabric = self.config, self.fabric
        self._set_rates(iteration)
        for name in (name for part in parts for name in part["skipped"]):
            if name not in self.skipped:
                log.warning("skipped: %s", name)
            self.skipped[name] += 1
        text = self.vocabulary.draw(np.random.default_rng([config.seed, 1, iteration])).to(fabric.device)
        valid = sum(self.weights[part["labels"].long()].double().sum() for part in parts)
        valid = fabric.all_reduce(valid, reduce_op="sum").clamp(min=1e-6)
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=fabric.device)
        for number, part in enumerate(parts, 1):
            with fabric.no_backward_sync(self.model, enabled=number < len(parts)):
                prediction, labels = self._predict(part, text, single)
                total = loss_sum(prediction, labels, config.alpha, config.beta, config.gamma, self.weights)
                loss = total / valid
                # DDP averages the gradients of the processes; the share of each is already one of the whole.
                fabric.backward(loss * fabric.world_size)
            mean += loss.detach()
        if self.film is not None:
            mean += self._neighbours(self.film, iteration, text)
        mean = float(fabric.all_reduce(mean, reduce_op="sum"))
        self._update(iteration, mean, single)
        return mean

    def _neighbours(self, film: FilmPairs, iteration: int, text: Tensor) -> Tensor:
        """The loss on neighbouring frames of film, its gradients added to those of the labelled clips."""
        pairs = {k: v.to(self.fabric.device) for k, v in film.batch(iteration, self.config.film_batch).items()}
        with torch.no_grad():
            before = self.model.forward_single(pairs["frames"][:, 1], text).logits
        now = self.model.forward_single(pairs["frames"][:, 0], text).logits
        loss = self.config.consistency * consistency_loss(now, before, pairs["flow"], pairs["trust"])
        self.fabric.backward(loss)
        self.parts_of_loss["consistency"] = loss.item()
        return loss.detach()

    def _set_rates(self, iteration: int) -> None:
        factor = learning_rate_factor(self.config, iteration)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _update(self, iteration: int, loss: float, single: bool) -> None:
        """Let the gradients of a batch change the weights.

        Raises:
            OV2VSSError: the loss is not finite; with the samples of the batch.
        """
        config = self.config
        if not np.isfinite(loss):
            samples = range(iteration * config.batch, (iteration + 1) * config.batch)
            batch = ", ".join(self.datasets[single].describe(i) for i in samples)
            raise OV2VSSError(
                f"the loss is {loss} at iteration {iteration + 1}, batch: {batch}",
                "lower the learning rate (--set lr=...) and go on with --resume",
            )
        if config.clip_grad:
            # fp16 overflows now and then: its scaler leaves such a step out.
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=config.clip_grad, error_if_nonfinite=self.scaler is None
            )
        self.optimizer.step()

    def _predict(self, part: dict[str, Any], text: Tensor, single: bool) -> tuple[Prediction, Tensor]:
        """Scores and labels of every labelled frame of a part."""
        clip, labels = part["clip"], part["labels"]
        if labels.ndim == 4:
            labels = labels.transpose(0, 1).flatten(0, 1)
        if single:
            return self.model.forward_single(clip[:, -1], text), labels
        distant, frames = part["distant"], clip.shape[1]
        count = len(labels) // len(clip)
        if count > 1:
            # Each labelled frame as a target, with the frames before it as references, clamped at the clip's first.
            past = [[max(0, t - k) for k in range(frames - 1, -1, -1)] for t in range(frames - count, frames)]
            clip = torch.cat([clip[:, indices] for indices in past])
            distant = distant.repeat(count, 1, 1, 1)
        return self.model(clip, distant, text, self.config.reference_grad), labels

    def _save(self, step: int) -> None:
        state: dict[str, object] = {}
        config, first = self.config, self.fabric.is_global_zero
        if config.validate_every and (step % config.validate_every == 0 or step == config.iterations):
            scores = validate(
                self.raw_model, self.encoder, config, self.run, "val", fabric=self.fabric, strict=self.strict
            )
            self.model.train()
            state["validation"] = scores
            if scores["miou"] is None:
                raise OV2VSSError(f"no labelled pixel in the split val of {config.data}", "set validate_every=0")
            log.info("iteration %d: validation mIoU %.4f", step, scores["miou"])
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if first:
            optimizer = checkpoint.flatten_optimizer(self.optimizer.optimizer)
            checkpoint.save(self.out, step, self.raw_model.trained_state(), optimizer, state)
            if "validation" in state and scores["miou"] > checkpoint.best_miou(self.out):
                checkpoint.mark_best(self.out, step, scores["miou"])
        self.fabric.barrier()


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
