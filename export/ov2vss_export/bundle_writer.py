"""Checkpoint -> bundle folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import save_file
from tqdm import tqdm

from ov2vss.checkpoint import Checkpoint
from ov2vss.clip import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss_export import verify
from ov2vss_export.graphs import GraphSpec, build_graphs
from ov2vss_export.model_card import model_card
from ov2vss_export.onnx_export import OPSET, export_graph, save_onnx, tag
from ov2vss_export.text_weights import quantize_weights
from ov2vss_runtime.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    Bundle,
    FileInfo,
    GraphInfo,
    Manifest,
    PreprocessInfo,
    StateInfo,
    TensorInfo,
    VocabularyInfo,
    file_sha256,
    vocabulary_key,
)
from ov2vss_runtime.files import write_json
from ov2vss_runtime.ort_engine import OrtEngine
from ov2vss_runtime.text import class_embeddings
from ov2vss_runtime.vocabulary import Vocabulary

log = logging.getLogger("ov2vss")
PRECISION = "fp32"


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: the trained model.
        vocabulary: the bundle's default words.
        out: folder to make.
        size: (H, W), multiples of 32.
        text_weights: ``float32`` or ``int8`` (weight-only).
        calibrate: video for the parity gates; generated clips without one.
        license_file: text that the weights are under, copied into the bundle.
        allow_parity_failure: keep the bundle and record the failure.
        clip: where the weights of a frozen CLIP come from; None: as in training.
    """

    checkpoint: Checkpoint
    vocabulary: Vocabulary
    out: Path
    size: tuple[int, int]
    text_weights: str = "float32"
    calibrate: Path | None = None
    license_file: Path | None = None
    allow_parity_failure: bool = False
    clip: ClipSource | None = None


def export_bundle(request: ExportRequest) -> list[verify.Gate]:
    """Write a bundle and prove it. The folder appears under its name only when it is complete and verified.

    Raises:
        OV2VSSError: ablated model, wrong text encoder, existing output, or a gate that fails.
    """
    config = request.checkpoint.run.train.model
    if config.ablations():
        raise OV2VSSError(
            f"this model was trained without {', '.join(config.ablations())}: ablated models are not exported",
            "evaluate it with ov2vss-eval --ckpt, or train a complete one",
        )
    if request.out.exists():
        raise OV2VSSError(f"{request.out} already exists", "choose another --out, or remove it first")
    encoder = request.checkpoint.text_encoder(request.clip)
    model = request.checkpoint.build(request.clip)
    part = request.out.with_name(request.out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        specs = build_graphs(model, encoder, request.size)
        manifest = _write_files(request, part, specs, encoder)
        gates = _verify(request, part, specs, model, encoder)
        manifest = manifest.model_copy(update={"verified": _verified(request, gates)})
        _write_manifest(part, manifest)
        (part / "README.md").write_text(model_card(manifest, gates), encoding="utf-8")
        failed = [gate for gate in gates if not gate.passed]
        if failed and not request.allow_parity_failure:
            first = failed[0]
            raise OV2VSSError(
                f"parity gate failed: {first.name} is {first.value:.4g}, bound {first.bound:g} ({first.detail})",
                "report this, or keep the bundle with --allow-parity-failure",
            )
        part.rename(request.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return gates


def _write_files(request: ExportRequest, folder: Path, specs: list[GraphSpec], encoder: Any) -> Manifest:
    """Graphs, tokenizer, embedding cache and a manifest that is not verified yet."""
    run, train = request.checkpoint.run, request.checkpoint.run.train
    config = train.model
    checkpoint_sha256 = file_sha256(request.checkpoint.weights_file)
    graphs: dict[str, GraphInfo] = {}
    for spec in tqdm(specs, desc="export", unit="graph", disable=None, leave=False):
        proto = export_graph(spec)
        weights = "float32"
        if spec.name == "text" and request.text_weights == "int8":
            proto, weights = quantize_weights(proto), "int8"
        tag(
            proto,
            producer=f"ov2vss {version('ov2vss')}",
            graph=spec.name,
            precision=PRECISION,
            checkpoint_sha256=checkpoint_sha256,
            size=f"{request.size[0]}x{request.size[1]}",
        )
        path = folder / f"{spec.name}.onnx"
        save_onnx(proto, path)
        graphs[spec.name] = GraphInfo(
            file=path.name,
            sha256=file_sha256(path),
            opset=OPSET,
            weights=weights,
            inputs=[_tensor_info(v) for v in proto.graph.input],
            outputs=[_tensor_info(v) for v in proto.graph.output],
        )
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(encoder.tokenizer.to_str(), encoding="utf-8")
    cache = folder / "vocabulary.safetensors"
    save_file({}, cache)
    state = next(v for v in graphs["stcf_step"].inputs if v.name == "state_in")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=request.out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        producer={
            p: version(p) for p in ("ov2vss", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "tokenizers")
        },
        source={
            "checkpoint_sha256": checkpoint_sha256,
            "step": request.checkpoint.state["step"],
            "preset": train.preset,
            "data": Path(train.data).name,
            "model": config.model_dump(mode="json"),
            "trained_classes": [c for c in run.classes if c.split(",")[0] not in run.unseen],
            "unseen": run.unseen,
            "text_encoder_sha256": run.text_encoder_sha256,
            "image_encoder_sha256": run.image_encoder_sha256,
        },
        graphs={PRECISION: graphs},
        state=StateInfo(
            input="state_in",
            output="state_out",
            shape=[int(d) for d in state.shape],
            dtype=state.dtype,
            start="zeros",
            warmup=config.references,
        ),
        references=config.references,
        gap=config.gap,
        preprocess=PreprocessInfo(
            colour_order="RGB",
            size=request.size,
            resize="stretch; bilinear (OpenCV INTER_LINEAR), area averaging (INTER_AREA) when shrinking by more than 2",
            mean=list(config.mean),
            std=list(config.std),
            normalised_in="graph",
        ),
        postprocess={
            "argmax": "runtime, after bilinear upsampling of the logits to the video's size (half-pixel centres)",
            "labels_in_memory": "index into names; unknown 255 (65535 above 254 classes)",
            "labels_on_disk": "index + 1; unknown 0",
        },
        tokenizer=FileInfo(file=tokenizer.name, sha256=file_sha256(tokenizer)),
        vocabulary=VocabularyInfo(
            entries=[list(e) for e in request.vocabulary.entries],
            templates=list(config.prompts),
            key="",
            embed_dim=config.embed_dim,
        ),
        vocabulary_cache=FileInfo(file=cache.name, sha256=file_sha256(cache)),
        verified={},
    )
    _write_manifest(folder, manifest)

    # The cache holds what the bundle's own text graph says, so that cached and fresh words are the same.
    engine = OrtEngine(Bundle.open(folder))
    embeddings = class_embeddings(engine.encode_text, request.vocabulary, config.prompts)
    key = vocabulary_key(request.vocabulary, config.prompts, graphs["text"].sha256, manifest.tokenizer.sha256)
    save_file({key: np.ascontiguousarray(embeddings)}, cache)
    cache.chmod(tokenizer.stat().st_mode)
    manifest = manifest.model_copy(
        update={
            "vocabulary": manifest.vocabulary.model_copy(update={"key": key}),
            "vocabulary_cache": FileInfo(file=cache.name, sha256=file_sha256(cache)),
        }
    )
    if request.license_file is not None:
        shutil.copyfile(request.license_file, folder / "LICENSE-WEIGHTS")
    _write_manifest(folder, manifest)
    return manifest


def _verify(
    request: ExportRequest, folder: Path, specs: list[GraphSpec], model: Any, encoder: Any
) -> list[verify.Gate]:
    bundle = Bundle.open(folder)
    engine = OrtEngine(bundle)
    frames = (
        verify.video_frames(str(request.calibrate), request.size)
        if request.calibrate
        else verify.generated_frames(request.size)
    )
    templates = tuple(bundle.manifest.vocabulary.templates)
    prompts = [
        templates[i % len(templates)].replace("{}", name) for i, name in enumerate(request.vocabulary.names[:64])
    ]
    embeddings = bundle.cached_embeddings(request.vocabulary, PRECISION)
    gap = bundle.manifest.gap
    gates = [verify.gate_text(engine, encoder, prompts, request.text_weights == "int8")]
    gates += verify.gate_graphs(engine, specs, frames[0])
    gates += verify.gate_rollout(verify.rollout(engine, model, request.vocabulary, embeddings, templates, gap, frames))
    gates.append(verify.gate_reset(engine, request.vocabulary, templates, embeddings, gap, frames))
    return gates


def _verified(request: ExportRequest, gates: list[verify.Gate]) -> dict[str, Any]:
    return {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "provider": "CPUExecutionProvider",
        "precision": PRECISION,
        "frames": request.calibrate.name if request.calibrate else "generated",
        "passed": all(g.passed for g in gates),
        "gates": [g.record() for g in gates],
    }


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    return TensorInfo(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=[d.dim_param or d.dim_value for d in tensor.shape.dim],
    )
