"""Checkpoint -> bundle folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from safetensors.numpy import save_file

from ov2vss.checkpoint import Checkpoint
from ov2vss.clip_source import ClipSource
from ov2vss.data import SHAPES, open_videos
from ov2vss.errors import OV2VSSError
from ov2vss.licenses import LICENSE, license_for_export, license_title
from ov2vss.model import OV2VSS
from ov2vss.text import TextEncoder
from ov2vss.torch_engine import TorchEngine
from ov2vss_export import torch_gates
from ov2vss_export.fp16 import to_fp16
from ov2vss_export.graphs import GraphSpec, build_graphs
from ov2vss_export.int8 import Quantizer
from ov2vss_export.model_card import model_card
from ov2vss_export.onnx_export import export_graph, save_onnx, tag
from ov2vss_export.rounding import round_weights
from ov2vss_export.stages import Stages
from ov2vss_export.storage import store_fp16
from ov2vss_export.text_weights import quantize_weights
from ov2vss_runtime.atomic_files import write_json, write_text
from ov2vss_runtime.bundle import verify
from ov2vss_runtime.bundle.bundle import (
    DECODER_PARTS,
    FORMAT_VERSION,
    MANIFEST,
    Bundle,
    FileInfo,
    GraphInfo,
    Manifest,
    PreprocessInfo,
    StateInfo,
    TensorInfo,
    VariantInfo,
    VocabularyInfo,
    builtin_bundles,
    file_sha256,
    vocabulary_key,
)
from ov2vss_runtime.bundle.decisive import sealed
from ov2vss_runtime.bundle.made import MADE
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.engines.engine import Engine
from ov2vss_runtime.engines.onnxruntime import OrtEngine

log = logging.getLogger("ov2vss")
PLANS: dict[str, dict[str, tuple[str, ...]]] = {
    "fp32": {"fp32": ("onnxruntime", "openvino", "tensorrt")},
    "fp16": {"fp16": ("onnxruntime", "tensorrt")},
    "int8": {"int8": ("onnxruntime", "openvino"), "int8-tensorrt": ("tensorrt",)},
}
"""Precision -> variants that it asks for -> engines that each serves, its own engine first."""
TOKENIZER, CACHE, PARITY = "tokenizer.json", "vocabulary.safetensors", "parity.safetensors"
CALIBRATION_FRAMES = 48
SEARCH_FRAMES = 12


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: the trained model.
        vocabulary: the bundle's default words.
        out: folder to make.
        size: (H, W), multiples of 32.
        precisions: of ``fp32``, ``fp16``, ``int8``; fp32 is always there.
        text_weights: ``float32`` or ``int8`` (weight-only).
        calibrate: video for int8 ranges and for the parity gates; generated clips without one.
        data: labelled videos to compare mIoU on, in any layout of ``ov2vss-eval``.
        split: of ``data``.
        license_file: text that the weights are under; None: that which lies beside the checkpoint.
        replace_license: ``license_file`` may take the place of the checkpoint's own.
        card_file: Markdown that goes into the model card.
        allow_parity_failure: keep the bundle and record the failure.
        rollout: frames of the roll-out gate.
        clip: where the weights of a frozen CLIP come from; None: as in training.
        decoder_parts: also write the decoder in its two parts (see docs/bundle.md).
        store: ``fp16`` rounds the weights to half precision once and stores constants so; what can be made of the
            stored graphs when it is first used (int8 for TensorRT) is left out.
    """

    checkpoint: Checkpoint
    vocabulary: Vocabulary
    out: Path
    size: tuple[int, int]
    precisions: tuple[str, ...] = ("fp32",)
    text_weights: str = "float32"
    calibrate: Path | None = None
    data: str | None = None
    split: str = "test"
    license_file: Path | None = None
    replace_license: bool = False
    card_file: Path | None = None
    allow_parity_failure: bool = False
    rollout: int = verify.ROLLOUT
    clip: ClipSource | None = None
    decoder_parts: bool = True
    store: Literal["fp32", "fp16"] = "fp32"


class GateError(OV2VSSError):
    """Gates failed.

    Args:
        gates: those of every variant, passed ones too.
        kept: where the bundle is.
    """

    def __init__(self, gates: dict[str, list[verify.Gate]], kept: Path) -> None:
        self.gates = gates
        failed = [
            f"{gate.name} is {gate.value:.4g}, bound {gate.bound:g} ({variant}, {gate.detail})"
            for variant, found in gates.items()
            for gate in found
            if not gate.passed
        ]
        super().__init__(
            f"parity gate failed: {'; '.join(failed)}",
            f"report this; the bundle is kept as {kept}, and under its own name with --allow-parity-failure",
        )


def _kept(part: Path, out: Path) -> Path:
    """A bundle that failed, moved from its working folder to ``<out>.failed`` in the place of an earlier one."""
    kept = out.with_name(f"{out.name}.failed")
    shutil.rmtree(kept, ignore_errors=True)
    return part.rename(kept)


def export_bundle(request: ExportRequest) -> dict[str, list[verify.Gate]]:
    """Write a bundle and prove it: the gates of every variant. The folder appears under its name only when it is
    complete and verified.

    Raises:
        OV2VSSError: ablated model, wrong text encoder, existing output, labelled videos that cannot be opened.
        GateError: gates fail; the bundle is kept beside ``request.out`` under another name.
    """
    config = request.checkpoint.run.train.model
    if config.ablations():
        raise OV2VSSError(
            f"this model was trained without {', '.join(config.ablations())}: ablated models are not exported",
            "evaluate it with ov2vss-eval --ckpt, or train a complete one",
        )
    if request.out.exists():
        raise OV2VSSError(f"{request.out} already exists", "choose another --out, or remove it first")
    if "int8" in request.precisions and request.calibrate is None and request.checkpoint.run.train.data != SHAPES:
        raise OV2VSSError("int8 needs frames like those it will see", "add --calibrate VIDEO", usage=True)
    if request.data is not None:
        open_videos(request.data, request.split)  # not at the end of the work
    license_text = license_for_export(request.checkpoint.folder, request.license_file, request.replace_license)
    encoder = request.checkpoint.text_encoder(request.clip)
    model = request.checkpoint.build(request.clip)
    if request.store == "fp16":
        round_weights(model)
    return in_one_piece(request, lambda part: BundleExport(request, part, model, encoder, license_text).run())


def in_one_piece(
    request: ExportRequest, write: Callable[[Path], dict[str, list[verify.Gate]]]
) -> dict[str, list[verify.Gate]]:
    """Let ``write`` fill a folder, which appears as ``request.out`` only when all gates passed."""
    part = request.out.with_name(request.out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        gates = write(part)
        if not all(gate.passed for found in gates.values() for gate in found) and not request.allow_parity_failure:
            raise GateError(gates, _kept(part, request.out))
        part.rename(request.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return gates


@dataclass
class BundleExport:
    """One export into an empty folder."""

    request: ExportRequest
    folder: Path
    model: OV2VSS
    encoder: TextEncoder
    license: str | None = None
    variants: dict[str, VariantInfo] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Per variant, what was decided on the way."""
    _searched: tuple[npt.NDArray[np.float32], list[npt.NDArray[Any]]] | None = None
    """Class embeddings, and the fp32 graphs' labels of the frames on which int8 layers are chosen."""

    def __post_init__(self) -> None:
        variants = sum(len(PLANS[p]) for p in {"fp32", *self.request.precisions})
        # Graphs, the variants beside fp32, words, torch, and the proof of each variant.
        self.stages = Stages(planned=3 + (variants - 1) + variants)

    def run(self) -> dict[str, list[verify.Gate]]:
        request = self.request
        left_out = () if request.decoder_parts else DECODER_PARTS
        with self.stages("graphs"):
            graphs = self._graphs()
        self.specs = [spec for spec in graphs if spec.name not in left_out]
        self.frames = (
            torch_gates.video_frames(request.calibrate, request.size, request.rollout)
            if request.calibrate
            else torch_gates.generated_frames(request.size, request.rollout)
        )
        self.checkpoint_sha256 = self._identity()
        with self.stages("graphs"):
            self.protos = {spec.name: export_graph(spec) for spec in self.specs}
        self._add_variant("fp32", "fp32", self._text_weights(self._tagged(self.protos, "fp32")))
        self._write_others()
        for precision in request.precisions:
            if precision == "fp16":
                with self.stages("fp16"):
                    self._add_variant("fp16", "fp16", self._half())
            elif precision == "int8":
                quantizer = Quantizer(self.protos["backbone"], self._calibration())
                for variant, engines in PLANS["int8"].items():
                    if request.store == "fp16" and variant in MADE:
                        continue
                    with self.stages(f"int8 for {engines[0]}"):
                        proto = self._quantized(quantizer, variant, engines[0])
                        self._add_variant("int8", variant, {"backbone": proto})
        with self.stages("words"):
            embeddings = self._fill_cache()
        gates = self._verify(embeddings)
        log.info("export: %s", self.stages.summary())
        return gates

    # -- of a trained model; a training-free one has its own (clip_writer) -----------------------------------------

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts of a word."""
        return self.request.checkpoint.run.train.model.prompts

    @property
    def gap(self) -> int:
        return self.request.checkpoint.run.train.gap

    def _graphs(self) -> list[GraphSpec]:
        return build_graphs(self.model, self.encoder, self.request.size)

    def _identity(self) -> str:
        """sha256 of the file that the weights come from."""
        return file_sha256(self.request.checkpoint.weights_file)

    def _reference(self, embeddings: npt.NDArray[np.float32]) -> verify.Rolled:
        """The torch model over frames in order, made without any carried state."""
        return torch_gates.ClipReference(self.model, self.request.checkpoint.run.train.model.gap, embeddings)

    def _torch_engine(self) -> Engine:
        return TorchEngine(self.model, self.request.size, self.encoder)

    # -- graphs ----------------------------------------------------------------------------------------------------

    def _tagged(self, protos: dict[str, onnx.ModelProto], precision: str) -> dict[str, onnx.ModelProto]:
        """Copies with the bundle's identity in the place of the exporter's notes."""
        copies = {name: onnx.ModelProto.FromString(proto.SerializeToString()) for name, proto in protos.items()}
        for name, proto in copies.items():
            tag(
                proto,
                producer=f"ov2vss {version('ov2vss')}",
                graph=name,
                precision=precision,
                checkpoint_sha256=self.checkpoint_sha256,
                size=f"{self.request.size[0]}x{self.request.size[1]}",
            )
        return copies

    def _text_weights(self, protos: dict[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
        if self.request.text_weights == "int8":
            protos["text"] = quantize_weights(protos["text"])
        protos["text"] = shared_text(protos["text"])
        return protos

    def _half(self) -> dict[str, onnx.ModelProto]:
        # Norms of fp16 graphs have to be operators: the lean forms are for float32.
        specs = [s for s in self.specs if s.name not in DECODER_PARTS]
        plain = {s.name: export_graph(s, lean=False) if s.lean else self.protos[s.name] for s in specs}
        names = [n for n in plain if n != "text" or self.request.text_weights == "float32"]
        return self._tagged({name: to_fp16(plain[name]) for name in names}, "fp16")

    def _quantized(self, quantizer: Quantizer, variant: str, engine: str) -> onnx.ModelProto:
        """int8 backbone with as few layers in float32 as the label agreement on other frames asks for."""
        frames = self.frames[:: max(1, len(self.frames) // SEARCH_FRAMES)]
        bundle = self._open()
        if self._searched is None:  # the same for every int8 variant
            exact = OrtEngine(bundle, "fp32")
            embeddings = self._embeddings(exact)
            self._searched = embeddings, torch_gates.label_maps(exact, bundle.manifest, embeddings, frames)
        embeddings, wanted = self._searched

        def accept(proto: onnx.ModelProto) -> bool:
            engine = OrtEngine(bundle, "fp32", replace={"backbone": proto.SerializeToString()})
            found = torch_gates.label_maps(engine, bundle.manifest, embeddings, frames)
            share = float(np.mean([(a == b).mean() for a, b in zip(found, wanted, strict=True)]))
            return share >= (1 + verify.BOUNDS["int8"].agreement) / 2

        proto, kept = quantizer.search(engine, accept, frames[:2])
        self.notes[variant] = f"{len(quantizer.layers) - len(kept)} of {len(quantizer.layers)} layers in int8"
        log.info("int8 for %s: %s", engine, self.notes[variant])
        return self._tagged({"backbone": proto}, "int8")["backbone"]

    def _calibration(self) -> list[npt.NDArray[np.uint8]]:
        if self.request.calibrate is None:
            return self.frames[:: max(1, len(self.frames) // CALIBRATION_FRAMES)]
        return torch_gates.spread_frames(self.request.calibrate, self.request.size, CALIBRATION_FRAMES)

    def _add_variant(self, precision: str, variant: str, protos: dict[str, onnx.ModelProto]) -> None:
        """Write the graphs that a variant has of its own; the others are those of fp32."""
        graphs = dict(self.variants["fp32"].graphs) if self.variants else {}
        for name, proto in protos.items():
            path = self.folder / (f"{name}.onnx" if variant == "fp32" else f"{name}.{variant}.onnx")
            save_onnx(store_fp16(proto) if self.request.store == "fp16" and name != "text" else proto, path)
            weights = "int8" if name == "text" and self.request.text_weights == "int8" else precision
            if name == "decoder":
                # Parts of another decoder than this variant's own do not belong to it.
                graphs = {k: v for k, v in graphs.items() if k not in DECODER_PARTS}
            graphs[name] = GraphInfo(
                file=path.name,
                sha256=file_sha256(path),
                opset=next(o.version for o in proto.opset_import if o.domain == ""),
                weights=weights,
                inputs=[_tensor_info(v) for v in proto.graph.input],
                outputs=[_tensor_info(v) for v in proto.graph.output],
            )
        engines = list(PLANS[precision][variant])
        self.variants[variant] = VariantInfo(precision=precision, engines=engines, graphs=graphs)

    # -- manifest --------------------------------------------------------------------------------------------------

    def _write_others(self) -> None:
        """Tokenizer and licence; the embedding cache and the samples for verification, empty yet."""
        write_text(self.folder / TOKENIZER, self.encoder.tokenizer.to_str())
        for name in (CACHE, PARITY):
            self._save_tensors(name, {})
        if self.license is not None:
            write_text(self.folder / LICENSE, self.license)

    def _save_tensors(
        self, name: str, tensors: dict[str, npt.NDArray[np.float32]], metadata: dict[str, str] | None = None
    ) -> None:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, self.folder / name, metadata)
        (self.folder / name).chmod((self.folder / TOKENIZER).stat().st_mode)

    def _open(self) -> Bundle:
        """The bundle as far as it has got."""
        write_json(self.folder / MANIFEST, self._manifest().model_dump(mode="json"))
        return Bundle.open(self.folder)

    def _manifest(self) -> Manifest:
        request = self.request
        run, train = request.checkpoint.run, request.checkpoint.run.train
        config = train.model
        state = next(v for v in self.variants["fp32"].graphs["stcf_step"].inputs if v.name == "state_in")

        def file(name: str) -> FileInfo:
            return FileInfo(file=name, sha256=file_sha256(self.folder / name))

        return Manifest(
            format_version=FORMAT_VERSION,
            name=request.out.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            producer={
                p: version(p) for p in ("ov2vss", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "tokenizers")
            },
            source={
                "checkpoint_sha256": self.checkpoint_sha256,
                "step": request.checkpoint.state["step"],
                "preset": train.preset,
                "data": Path(train.data).name,
                "model": config.model_dump(mode="json"),
                "trained_classes": [c for c in run.classes if c.split(",")[0] not in run.unseen],
                "unseen": run.unseen,
                "text_encoder_sha256": run.text_encoder_sha256,
                "image_encoder_sha256": run.image_encoder_sha256,
                "license": self._license_info(),
            },
            variants=self.variants,
            state=StateInfo(
                input="state_in",
                output="state_out",
                shape=[int(d) for d in state.shape],
                dtype=state.dtype,
                warmup=config.references,
            ),
            references=config.references,
            gap=config.gap,
            store=request.store,
            preprocess=PreprocessInfo(
                colour_order="RGB",
                size=request.size,
                resize="stretch; bilinear (OpenCV INTER_LINEAR), area averaging (INTER_AREA) when shrinking by more "
                "than 2",
                mean=list(config.mean),
                std=list(config.std),
            ),
            tokenizer=file(TOKENIZER),
            vocabulary=VocabularyInfo(
                entries=[list(e) for e in request.vocabulary.entries],
                templates=list(config.prompts),
                embed_dim=config.embed_dim,
                key=self._key("fp32"),
            ),
            vocabulary_cache=file(CACHE),
            parity=file(PARITY),
        )

    def _license_info(self) -> dict[str, str] | None:
        if self.license is None:
            return None
        return {"file": LICENSE, "sha256": file_sha256(self.folder / LICENSE), "title": license_title(self.license)}

    def _key(self, variant: str) -> str:
        """Name of the default words' embeddings in the cache."""
        text = self.variants[variant].graphs["text"].sha256
        return vocabulary_key(self.request.vocabulary, self.templates, text, file_sha256(self.folder / TOKENIZER))

    # -- words -----------------------------------------------------------------------------------------------------

    def _embeddings(self, engine: OrtEngine) -> npt.NDArray[np.float32]:
        return class_embeddings(engine.encode_text, self.request.vocabulary, self.templates)

    def _fill_cache(self) -> npt.NDArray[np.float32]:
        """Embeddings by the bundle's own text graphs, so that cached and fresh words are the same; those of fp32."""
        bundle, tensors = self._open(), {}
        for variant in self.variants:
            key = bundle.vocabulary_key(self.request.vocabulary, variant)
            if key not in tensors:
                tensors[key] = self._embeddings(OrtEngine(bundle, variant))
        self._save_tensors(CACHE, tensors)
        return tensors[bundle.vocabulary_key(self.request.vocabulary, "fp32")]

    # -- proof -----------------------------------------------------------------------------------------------------

    def _verify(self, embeddings: npt.NDArray[np.float32]) -> dict[str, list[verify.Gate]]:
        """Gates of every variant against torch; samples of what came out are left in the bundle."""
        request, bundle = self.request, self._open()
        manifest = bundle.manifest
        with self.stages("torch"):
            reference = torch_gates.graph_reference(self.specs, self.frames[0])
        scales = reference.scales()
        small = embeddings[: verify.CLASSES]
        frames = verify.synthetic_frames(request.size)
        reference_stream = self._reference(small)
        # torch's labels of the roll-out are made once for all variants.
        with self.stages("torch"):
            logits = verify.rolled_logits(self._reference(embeddings), self.frames, "torch")
            trained = [torch_gates.Truth.of(values, request.size) for values in logits]
        with self.stages("torch"):
            miou = self._miou(self._torch_engine()) if request.data else None
        prompts = [
            manifest.vocabulary.templates[i % len(manifest.vocabulary.templates)].replace("{}", name)
            for i, name in enumerate(request.vocabulary.names[:64])
        ]
        expected, gates = {}, {}
        trained_rollout = np.empty(0, np.float32)
        for variant, info in self.variants.items():
            with self.stages(f"proof of {variant}"):
                engine = OrtEngine(bundle, variant)
                exact = info.graphs["text"].weights == "fp32"
                found = [torch_gates.gate_text(engine, self.encoder, prompts, exact)]
                found += torch_gates.gate_graphs(engine, reference, info.graphs)
                make_stream = verify.stream_maker(engine, manifest, embeddings)
                rolled_out = torch_gates.rollout(make_stream, trained, self.frames)
                found += torch_gates.gate_rollout(rolled_out, info.precision)
                if miou is not None:
                    found.append(torch_gates.gate_miou(miou, self._miou(engine), info.precision, str(request.data)))
                feeds = verify.graph_inputs(manifest, scales, engine.text_feed)
                samples = verify.run_graphs(engine, feeds)
                if variant == "fp32":
                    samples |= torch_gates.sampled_outputs(self.specs, feeds)
                    trained_rollout = verify.sampled_rollout(lambda: reference_stream, frames)
                rolled = verify.sampled_rollout(verify.stream_maker(engine, manifest, small), frames)
                found.append(verify.gate_other_frames(rolled, trained_rollout, info.precision))
                expected[variant] = samples | {"rollout": trained_rollout if variant == "fp32" else rolled}
                found.append(verify.gate_reset(make_stream, self.frames))
            gates[variant] = found
            self.variants[variant] = info.model_copy(update={"verified": self._verified(variant, found)})
        self._save_tensors(PARITY, verify.Parity(scales, expected, small).tensors(), sealed(self._manifest()))
        manifest = self._open().manifest
        about = request.card_file.read_text(encoding="utf-8") if request.card_file else ""
        write_text(self.folder / "README.md", model_card(manifest, gates, about))
        return gates

    def _miou(self, engine: Engine) -> float:
        """mIoU of an engine on ``data``, streamed, with the data set's own class names."""
        return torch_gates.labelled_miou(engine, str(self.request.data), self.request.split, self.templates, self.gap)

    def _verified(self, variant: str, gates: list[verify.Gate]) -> dict[str, Any]:
        record: dict[str, Any] = {
            "engine": f"onnxruntime {onnxruntime.__version__}",
            "provider": "CPUExecutionProvider",
            "frames": self.request.calibrate.name if self.request.calibrate else "generated",
            "passed": all(g.passed for g in gates),
            "gates": [g.record() for g in gates],
        }
        return record | ({"note": self.notes[variant]} if variant in self.notes else {})


def shared_text(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The text graph of an installed bundle, if it is this one but for its notes: bundles then share a file by its
    sha256."""

    def bare(model: onnx.ModelProto) -> bytes:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        tag(copy)
        return copy.SerializeToString(deterministic=True)

    for folder in builtin_bundles().values():
        path = folder / "text.onnx"
        if path.is_file() and bare(known := onnx.load(path)) == bare(proto):
            return known
    return proto


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    return TensorInfo(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=[d.dim_param or d.dim_value for d in tensor.shape.dim],
    )
