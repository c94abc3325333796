"""Learning rates: those of each group of parameters, and how they change over a run."""

from __future__ import annotations

from torch import nn

from ov2vss.presets import TrainConfig


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
