"""Trained weights that half precision holds exactly, so that they need half the space and change nothing any more.

A batch norm is folded into its convolution by the exporter, which would make new numbers of rounded weights. Here it is
folded first: the norm is left with a factor of exactly one, and what is rounded is what the graph holds.

    python -m ov2vss_export.rounding runs/street
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ov2vss import checkpoint
from ov2vss.model import OV2VSS
from ov2vss_runtime.console import CONTEXT, program

FEWEST_VALUES = 8192
"""Tensors of fewer values are left alone: scales, offsets, and the first layers, whose weights every pixel meets.

Of street-lite they are 3 % of the weights, and rounding them moves thirty times as many pixels as rounding all others.
"""
LARGEST, SMALLEST = 65_504.0, 6.2e-5
"""Of normal half-precision numbers."""


def rounded(values: Tensor) -> Tensor:
    """The nearest half-precision numbers as float32; the values themselves where half precision cannot hold them.

    Numbers below :data:`SMALLEST` lose digits, but no more than the rounding of a number of that size.
    """
    if values.numel() < FEWEST_VALUES or not values.is_floating_point() or float(values.abs().max()) > LARGEST:
        return values
    return values.half().to(values.dtype)


@torch.no_grad()
def fold_norms(model: OV2VSS) -> int:
    """Move the factors of the backbone's frozen batch norms into the convolutions before them; the number of norms.

    What the model computes stays the same up to rounding.
    """
    made: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # ids are unique only among the living
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = module
        kept.append(output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d):
            pairs.append((made[id(inputs[0])], module))

    backbone = model.backbone.eval()
    hooks = [m.register_forward_hook(after_conv) for m in backbone.modules() if type(m) is nn.Conv2d]
    hooks += [m.register_forward_pre_hook(before_norm) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    backbone(torch.rand(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        if norm.running_mean is None or norm.running_var is None:
            continue
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        conv.weight.copy_(conv.weight.double() * factor[:, None, None, None])
        norm.bias.copy_(norm.bias.double() - norm.running_mean.double() * factor)
        norm.running_mean.zero_()
        norm.weight.fill_(1)
        norm.running_var.copy_(_one_less(norm.eps))
    return len(pairs)


def _one_less(epsilon: float) -> Tensor:
    """The float32 number whose sum with ``epsilon``, in float32, is exactly one."""
    one, found = torch.tensor(1.0), torch.tensor(1.0 - epsilon)
    for _ in range(8):
        if found + epsilon == one:
            return found
        found = torch.nextafter(found, one if found + epsilon < one else torch.tensor(0.0))
    raise AssertionError(f"no float32 number and {epsilon} make one")


@torch.no_grad()
def round_weights(model: OV2VSS) -> OV2VSS:
    """The model with its norms folded and its weights rounded, in place. A second time changes nothing."""
    fold_norms(model)
    for parameter in model.parameters():
        parameter.copy_(rounded(parameter))
    return model


def round_checkpoint(run: Path) -> tuple[int, int]:
    """Round the checkpoint of a run where it lies; bytes before and after. Its optimizer no longer fits and goes."""
    found = checkpoint.find(run)
    before = found.weights_file.stat().st_size
    weights = found.weights()
    model = round_weights(found.build())
    trained = model.trained_state()
    # The auxiliary head is no part of the model that is built.
    weights = {k: trained[k] if k in trained else rounded(v) for k, v in weights.items()}
    stored = {}
    for name, values in weights.items():
        exact = (
            values.is_floating_point()
            and values.numel() >= FEWEST_VALUES
            and torch.equal(values, values.half().float())
        )
        stored[name] = (values.half() if exact else values).contiguous().clone()
    part = found.weights_file.with_suffix(".part")
    save_file(stored, part)
    part.replace(found.weights_file)
    (found.folder / "optimizer.safetensors").unlink(missing_ok=True)
    return before, found.weights_file.stat().st_size


@click.command(context_settings=CONTEXT)
@click.argument("run", type=click.Path(path_type=Path))
@program
def main(run: Path) -> None:
    """Round the checkpoint of RUN to half precision, in place."""
    before, after = round_checkpoint(run)
    click.echo(f"{run}: {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
