"""One training step of a small model, alone or under torchrun; the first process writes the gradients to a file.

python tests/train/first_step.py DATA OUT.safetensors [accumulate]
"""

import sys
from pathlib import Path

from safetensors.torch import save_file

from ov2vss.presets import configure
from ov2vss.train.loop import Trainer

SETTINGS = (
    "model.backbone=test_resnet", "model.freeze_norm=true", "batch=4", "iterations=2", "per_frame_iterations=0",
    "clip_grad=0", "workers=0", "warmup=0", "size=64x96", "crop=64x64", "gap=1", "scale=1,1",
    "class_balance=0.5", "model.stcf_residual=true",
)  # fmt: skip


def main(data: str, out: str, accumulate: str = "1") -> None:
    config = configure("tiny", [*SETTINGS, f"accumulate={accumulate}"], data=data)
    trainer = Trainer(config, Path(out).with_suffix(""))
    trainer.model.train()
    parts = iter(trainer._loader(False, 0, 1))
    batches = [next(parts) for _ in range(config.accumulate)]
    trainer._iterate(0, batches, single=False)
    if trainer.fabric.is_global_zero:
        valid = sum(int((b["labels"] != 255).sum()) for b in batches)
        grads = {k: p.grad.contiguous() for k, p in trainer.raw_model.named_parameters() if p.grad is not None}
        save_file(grads, out, {"valid": str(valid), "world": str(trainer.fabric.world_size)})


if __name__ == "__main__":
    main(*sys.argv[1:])
