"""Scores of a model in training: one streaming pass, shared by the processes of a run."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric

from ov2vss import checkpoint
from ov2vss.data import open_videos
from ov2vss.evaluate.evaluate import make_protocol, predict_with, tally
from ov2vss.model import OV2VSS
from ov2vss.presets import TrainConfig
from ov2vss.text import TextEncoder
from ov2vss.torch_engine import TorchEngine
from ov2vss_runtime.stream.stream import Stream


def validate(
    model: OV2VSS,
    encoder: TextEncoder,
    config: TrainConfig,
    run: checkpoint.RunConfig,
    split: str,
    engine: type[TorchEngine] = TorchEngine,
    fabric: Fabric | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Scores of a model on a split, streamed; all classes of the data set are in the vocabulary.

    With a ``fabric`` of several processes each takes its share of the videos, and all return the scores of the whole.
    """
    videos = open_videos(config.data, split, stills=config.stills)
    unseen = [videos.classes.names.index(name) for name in run.unseen]
    protocol = make_protocol(videos, "all", None, unseen)
    runner = engine(model.eval(), config.size, encoder)
    embeddings = Stream(runner, protocol.vocabulary, config.model.prompts, config.gap).embeddings

    def make_stream() -> Stream:
        return Stream(runner, protocol.vocabulary, config.model.prompts, config.gap, "farthest", embeddings=embeddings)

    share = (fabric.global_rank, fabric.world_size) if fabric is not None else (0, 1)
    result = tally(videos, protocol, predict_with(make_stream, strict), share[0] == 0, strict, share)
    if fabric is not None and fabric.world_size > 1:
        counts = [torch.from_numpy(a).to(fabric.device) for a in (result.confusion.matrix, result.consistency)]
        counts.append(torch.tensor([result.frames, result.skipped], device=fabric.device))
        matrix, consistency, (frames, skipped) = (fabric.all_reduce(c, reduce_op="sum").cpu().numpy() for c in counts)
        result.confusion.matrix[:], result.consistency[:] = matrix, consistency
        result.frames, result.skipped = int(frames), int(skipped)
    return result.scores(videos, protocol)
