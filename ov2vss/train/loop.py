"""The training loop."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ov2vss import checkpoint
from ov2vss.data import open_videos
from ov2vss.data.clips import ClipDataset, ClipSpec, Steps
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.evaluate import evaluate, make_protocol, predict_with
from ov2vss.model import OV2VSS
from ov2vss.presets import TrainConfig
from ov2vss.text import TextEncoder, build_text_encoder
from ov2vss.torch_engine import TorchEngine
from ov2vss.train.loss import loss_sum
from ov2vss.train.vocabulary import TrainingVocabulary
from ov2vss.train.weights import load_backbone_weights
from ov2vss_runtime.protocol import label_table
from ov2vss_runtime.stream import Stream

log = logging.getLogger("ov2vss")
LOG_EVERY = 10


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """AdamW groups: the backbone at ``lr``, the rest at ``lr * head_lr_factor``; no decay on norms and biases."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = config.lr * (1.0 if name.startswith("backbone.") else config.head_lr_factor)
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]


def learning_rate_factor(config: TrainConfig, iteration: int) -> float:
    """Linear warm-up, then polynomial decay to zero at the last iteration."""
    if iteration < config.warmup:
        return (iteration + 1) / config.warmup
    return (1 - iteration / config.iterations) ** config.poly_power


class Trainer:
    """One run: its data, model and optimizer, and the loop over iterations.

    Args:
        config: the run; with an existing checkpoint in ``out`` and ``resume``, it must be the run's own.
        out: run folder.
        resume: go on from the last checkpoint in ``out``.
    """

    def __init__(self, config: TrainConfig, out: Path, resume: bool = False) -> None:
        self.config, self.out = config, out
        self.start = 0
        resumed = checkpoint.find(out, "last") if resume else None
        if resumed is not None and resumed.run.train != config:
            raise OV2VSSError(f"{out} was trained with other settings", "resume with --resume and --out alone")
        self.fabric = Fabric(accelerator="auto", devices=1, precision=config.precision)
        self.fabric.seed_everything(config.seed, verbose=False)

        videos = open_videos(config.data, "train", cache=True)
        hidden = videos.unseen if config.hold_out_unseen or config.data == "shapes" else []
        self.trained = [k for k in range(len(videos.classes)) if k not in hidden]
        table = label_table(len(videos.classes), self.trained)
        spec = ClipSpec(
            config.size,
            config.crop,
            config.scale,
            config.model.references,
            config.gap,
            config.reverse,
            config.flip,
            config.photometric,
        )
        self.datasets = {
            single: ClipDataset(videos, table, spec, config.seed, single=single) for single in (True, False)
        }
        if not len(self.datasets[True]):
            raise OV2VSSError(f"no frame of {config.data} has a mask", "put PNG masks into data/<video>/mask")
        self.encoder: TextEncoder = build_text_encoder(config.model)
        seen = type(videos.classes)(tuple(videos.classes.entries[k] for k in self.trained))
        self.vocabulary = TrainingVocabulary(self.encoder, seen, config.model, config.wordings, config.negatives)
        self.run = checkpoint.RunConfig(
            train=config,
            classes=[", ".join(entry) for entry in videos.classes.entries],
            unseen=[videos.classes.names[k] for k in hidden],
            text_encoder_sha256=self.encoder.identity(),
        )

        model = OV2VSS(config.model, aux_classes=len(self.trained))
        load_backbone_weights(model.backbone, config.model.backbone, config.backbone_weights)
        optimizer = torch.optim.AdamW(parameter_groups(model, config), betas=(0.9, 0.999))
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if resumed is not None:
            model.load_state_dict(resumed.weights())
            checkpoint.restore_optimizer(optimizer, resumed.optimizer())
            self.start = resumed.state["step"]
        model = model.to(memory_format=torch.channels_last)
        self.raw_model = model
        self.model, self.optimizer = self.fabric.setup(model, optimizer)
        self.model.mark_forward_method("forward_single")

    def fit(self, on_checkpoint: Callable[[int], None] | None = None) -> None:
        """Train to the last iteration, saving checkpoints on the way."""
        config = self.config
        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(self.out / "config.json", self.run.model_dump(mode="json"))
        self.model.train()
        bar = tqdm(total=config.iterations, initial=self.start, desc="train", unit="it", disable=None)
        with bar, CsvLog(self.out / "log.csv", self.start) as write:
            iteration = self.start
            while iteration < config.iterations:
                single = iteration < config.per_frame_iterations
                stop = min(config.per_frame_iterations, config.iterations) if single else config.iterations
                for batch in self._loader(single, iteration, stop):
                    began = time.perf_counter()
                    loss = self._iterate(iteration, batch, single)
                    iteration += 1
                    bar.update()
                    if iteration % LOG_EVERY == 0 or iteration == config.iterations:
                        rate = self.optimizer.param_groups[0]["lr"]
                        bar.set_postfix(loss=f"{loss:.3f}")
                        write(iteration, loss, rate, time.perf_counter() - began)
                    if iteration % config.save_every == 0 or iteration == config.iterations:
                        self._save(iteration)
                        if on_checkpoint is not None:
                            on_checkpoint(iteration)

    def _loader(self, single: bool, start: int, stop: int) -> DataLoader:
        config = self.config
        steps = Steps(start * config.batch, stop * config.batch)
        workers = config.workers
        loader = DataLoader(
            self.datasets[single],
            config.batch,
            sampler=steps,
            num_workers=workers,
            drop_last=True,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_one_thread,
        )
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _iterate(self, iteration: int, batch: dict[str, torch.Tensor], single: bool) -> float:
        config = self.config
        factor = learning_rate_factor(config, iteration)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        text = self.vocabulary.draw(np.random.default_rng([config.seed, 1, iteration])).to(self.fabric.device)
        if single:
            prediction = self.model.forward_single(batch["clip"][:, 0], text)
        else:
            prediction = self.model(batch["clip"], batch["distant"], text, config.reference_grad)
        total, valid = loss_sum(prediction, batch["labels"], config.alpha, config.beta, config.gamma)
        loss = total / valid.clamp(min=1)
        if not torch.isfinite(loss):
            raise OV2VSSError(
                f"the loss is {loss.item()} at iteration {iteration + 1} (samples {iteration * config.batch} to "
                f"{(iteration + 1) * config.batch - 1} of seed {config.seed})",
                "lower the learning rate (--set lr=...) and go on with --resume",
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if config.clip_grad:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=config.clip_grad)
        self.optimizer.step()
        return float(loss.detach())

    def _save(self, step: int) -> None:
        state: dict[str, object] = {}
        config = self.config
        if config.validate_every and (step % config.validate_every == 0 or step == config.iterations):
            scores = validate(self.raw_model, self.encoder, config, self.run, "val")
            self.model.train()
            state["validation"] = scores
            log.info("iteration %d: validation mIoU %.4f", step, scores["miou"])
        checkpoint.save(
            self.out, step, self.raw_model.state_dict(), checkpoint.flatten_optimizer(self.optimizer.optimizer), state
        )
        if "validation" in state:
            self._keep_best(step, float(state["validation"]["miou"]))

    def _keep_best(self, step: int, miou: float) -> None:
        if miou > checkpoint.best_miou(self.out):
            checkpoint.mark_best(self.out, step, miou)


def validate(
    model: OV2VSS,
    encoder: TextEncoder,
    config: TrainConfig,
    run: checkpoint.RunConfig,
    split: str,
    engine: type[TorchEngine] = TorchEngine,
) -> dict:
    """Scores of a model on a split, streamed; all classes of the data set are in the vocabulary."""
    videos = open_videos(config.data, split)
    unseen = [videos.classes.names.index(name) for name in run.unseen]
    protocol = make_protocol(videos, "all", None, unseen)
    runner = engine(model.eval(), config.size, encoder)
    embeddings = Stream(runner, protocol.vocabulary, config.model.templates, config.gap).embeddings

    def make_stream() -> Stream:
        return Stream(
            runner, protocol.vocabulary, config.model.templates, config.gap, "farthest", embeddings=embeddings
        )

    return evaluate(videos, protocol, predict_with(make_stream), progress=True)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)


class CsvLog:
    """``log.csv``: appended on resume, rows of iterations that are trained again are dropped."""

    COLUMNS = ("iteration", "loss", "learning_rate", "seconds")

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if start and path.is_file():
            with path.open(newline="") as stream:
                kept = [row for row in csv.reader(stream) if row and row[0].isdigit() and int(row[0]) <= start]
        self.stream = path.open("w", newline="")
        self.writer = csv.writer(self.stream)
        self.writer.writerow(self.COLUMNS)
        self.writer.writerows(kept)

    def __enter__(self) -> Callable[[int, float, float, float], None]:
        return self.write

    def write(self, iteration: int, loss: float, rate: float, seconds: float) -> None:
        self.writer.writerow((iteration, f"{loss:.6f}", f"{rate:.3e}", f"{seconds:.3f}"))
        self.stream.flush()

    def __exit__(self, *_: object) -> None:
        self.stream.close()
