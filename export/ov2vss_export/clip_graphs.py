"""The graphs of a training-free bundle (contract: docs/bundle.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.training_free import TrainingFree
from ov2vss.text import TextEncoder
from ov2vss_export.graphs import GraphSpec, text_spec


class ClipBackbone(nn.Module):
    """``frame`` uint8 [1, H, W, 3] RGB -> ``dense`` [D, h, w], ``tokens`` [1, M, D]."""

    def __init__(self, model: TrainingFree) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(frame)


class ClipStep(nn.Module):
    """``dense`` -> ``guidance``; a graph has to have a node, and 1 changes no bit."""

    def forward(self, dense: Tensor) -> Tensor:
        return dense * 1.0


class AffinityStep(nn.Module):
    """``dense``, ``state_in`` [D, h, w] -> ``guidance``, ``state_out``, which are the same."""

    def __init__(self, model: TrainingFree) -> None:
        super().__init__()
        self.model = model

    def forward(self, dense: Tensor, state_in: Tensor) -> tuple[Tensor, Tensor]:
        guidance, state = self.model.step(dense, state_in)
        assert state is not None
        return guidance, state * 1.0


class ClipDecoder(nn.Module):
    """``guidance``, ``class_embeddings`` [N, D] -> ``logits`` [N, h, w]; any N."""

    def __init__(self, model: TrainingFree) -> None:
        super().__init__()
        self.model = model

    def forward(self, guidance: Tensor, class_embeddings: Tensor) -> Tensor:
        return self.model.decode(guidance, class_embeddings)


@torch.no_grad()
def clip_graphs(model: TrainingFree, encoder: TextEncoder) -> list[GraphSpec]:
    """``text``, ``backbone``, ``stcf_step`` and ``decoder`` for frames of the model's size."""
    model = model.eval()
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (1, *model.size, 3), dtype=torch.uint8, generator=generator)
    dense, _ = model.encode(frame)  # tables are made here, not while tracing
    words = F.normalize(torch.randn(5, model.width, generator=generator), dim=-1)
    step = GraphSpec("stcf_step", ClipStep().eval(), {"dense": dense}, ["guidance"], {})
    if model.affinity is not None:
        carried = {"dense": dense, "state_in": torch.zeros_like(dense)}
        step = GraphSpec("stcf_step", AffinityStep(model).eval(), carried, ["guidance", "state_out"], {})
    return [
        text_spec(encoder),
        GraphSpec("backbone", ClipBackbone(model).eval(), {"frame": frame}, ["dense", "tokens"], {}),
        step,
        GraphSpec(
            "decoder",
            ClipDecoder(model).eval(),
            {"guidance": dense, "class_embeddings": words},
            ["logits"],
            {"class_embeddings": {0: "N"}},
        ),
    ]
