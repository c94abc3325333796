"""What is measured: backends and precisions that run here, bundles that are exported for it, and their checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import click
from workers import write_clip

from ov2vss_runtime.bundle.bundle import Bundle, builtin_bundles, file_sha256
from ov2vss_runtime.engines.backends import BACKENDS, status
from ov2vss_runtime.errors import BundleError, OV2VSSError
from ov2vss_runtime.stream.preprocess import snap

ROOT = Path(__file__).resolve().parent.parent


def installed() -> list[str]:
    """Backends that run here, each once."""
    return [name for name in BACKENDS if name != "onnxruntime:cpu" and status(name).startswith("yes")]


def combinations(bundle: Bundle, backends: Iterable[str], precisions: Iterable[str]) -> list[tuple[str, str]]:
    """Backends and precisions that a bundle can be run with. fp16 on a processor is slower than fp32 and only measured
    where it is asked for."""
    wanted, found = tuple(precisions), []
    for backend in backends:
        for precision in BACKENDS[backend].precisions:
            emulated = precision == "fp16" and backend == "onnxruntime"
            if precision not in wanted if wanted else emulated:
                continue
            try:
                bundle.variant("fp32" if precision == "bf16" else precision, BACKENDS[backend].family)
            except BundleError:
                continue
            found.append((backend, precision))
    return found


def exported(ckpt: Path, size: tuple[int, int], precisions: tuple[str, ...], cache: Path) -> Path:
    """A bundle of a checkpoint in the cache folder, made if it is not there: one per size, precisions, weights and
    version of the exporter."""
    from ov2vss import checkpoint
    from ov2vss.data.folder import VSPW_CLASSES
    from ov2vss_export.bundle_writer import export_bundle
    from ov2vss_export.export_request import ExportRequest
    from ov2vss_runtime.bundle.rollout import RESET_AT
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    found, asked = checkpoint.find(ckpt), size
    size = snap(size)
    if size != tuple(asked):
        click.echo(f"size {asked[0]}x{asked[1]} -> {size[0]}x{size[1]} (multiples of 32)", err=True)
    sources = [p for folder in ("ov2vss/model", "export/ov2vss_export") for p in sorted((ROOT / folder).glob("*.py"))]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in sources) + found.weights_file.read_bytes()).hexdigest()[:10]
    preset = found.run.train.preset
    out = cache / f"{size[0]}x{size[1]}-{'-'.join(precisions)}-{key}" / preset
    if not out.exists():
        click.echo(f"exporting {preset} at {size[0]}x{size[1]}, once", err=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        request = ExportRequest(
            checkpoint=found,
            vocabulary=Vocabulary.from_file(VSPW_CLASSES),
            out=out,
            size=size,
            precisions=precisions,
            calibrate=write_clip(cache / "calibrate.mp4", size, 48) if "int8" in precisions else None,
            rollout=RESET_AT + 1,
            allow_parity_failure=True,
        )
        export_bundle(request)
    return out


def untrained(preset: str, cache: Path) -> Path:
    """A checkpoint of a preset with random weights in the cache folder."""
    from untrained import write_untrained

    return write_untrained(preset, cache / f"{preset}-untrained")


def own_size(run: Path) -> tuple[int, int]:
    """(H, W) that a checkpoint was trained at."""
    from ov2vss import checkpoint

    return checkpoint.find(run).run.train.size


def own_checkpoint(bundle: str) -> Path | None:
    """The checkpoint of a built-in bundle, in a checkout."""
    folder = ROOT / "models" / Path(bundle).name
    return folder if bundle in builtin_bundles() and folder.is_dir() else None


def require_checkpoint(bundle: Bundle, ckpt: Path | None) -> Path:
    """The checkpoint that a bundle was exported from, or an OV2VSSError."""
    from ov2vss import checkpoint

    name = bundle.manifest.name
    if ckpt is None:
        raise OV2VSSError(f"torch and other sizes need the checkpoint that {name} was exported from", "add --ckpt RUN")
    if bundle.manifest.source["checkpoint_sha256"] != file_sha256(checkpoint.find(ckpt).weights_file):
        raise OV2VSSError(f"{ckpt} is not what {name} was exported from", "give its own checkpoint with --ckpt")
    return ckpt
