"""Checkpoint -> bundle folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from ov2vss.data import SHAPES, open_videos
from ov2vss.errors import OV2VSSError
from ov2vss.licenses import license_for_export
from ov2vss.torch_engine import TorchEngine
from ov2vss_export import torch_gates
from ov2vss_export.bundle_folder import CACHE, PARITY, BundleFolder
from ov2vss_export.export_request import ExportRequest, in_one_piece
from ov2vss_export.fp16 import to_fp16
from ov2vss_export.graph_files import shared_text, tagged, write_graph
from ov2vss_export.graphs import GraphSpec, build_graphs
from ov2vss_export.int8 import Quantizer
from ov2vss_export.int8_search import LayerSearch
from ov2vss_export.model_card import model_card
from ov2vss_export.onnx_export import export_graph
from ov2vss_export.proof import Subject, prove
from ov2vss_export.rounding import round_weights
from ov2vss_export.stages import Stages
from ov2vss_export.storage import store_fp16
from ov2vss_export.text_weights import quantize_weights
from ov2vss_runtime.atomic_files import write_text
from ov2vss_runtime.bundle.bundle import (
    DECODER_PARTS,
    Manifest,
    StateInfo,
    VariantInfo,
    file_sha256,
)
from ov2vss_runtime.bundle.decisive import sealed
from ov2vss_runtime.bundle.gates import Gate
from ov2vss_runtime.bundle.made import MADE
from ov2vss_runtime.bundle.rollout import Rolled
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.engines.engine import Engine
from ov2vss_runtime.engines.onnxruntime import OrtEngine

log = logging.getLogger("ov2vss")
PLANS: dict[str, dict[str, tuple[str, ...]]] = {
    "fp32": {"fp32": ("onnxruntime", "openvino", "tensorrt")},
    "fp16": {"fp16": ("onnxruntime", "tensorrt")},
    "int8": {"int8": ("onnxruntime", "openvino"), "int8-tensorrt": ("tensorrt",)},
}
"""Precision -> variants that it asks for -> engines that each serves, its own engine first."""
CALIBRATION_FRAMES = 48


def export_bundle(request: ExportRequest) -> dict[str, list[Gate]]:
    """Write a bundle and prove it: the gates of every variant. The folder appears under its name only when it is
    complete and verified.

    Raises:
        OV2VSSError: ablated model, wrong text encoder, existing output, labelled videos that cannot be opened.
        GateError: gates fail; the bundle is kept beside ``request.out`` under another name.
    """
    config = request.checkpoint.run.train.model
    if refused := [name for name in config.ablations() if name != "stcf"]:
        raise OV2VSSError(
            f"this model was trained without {', '.join(refused)}: ablated models are not exported",
            "evaluate it with ov2vss-eval --ckpt, or train a complete one",
        )
    if not config.stcf:
        log.info("a model without STCF: its step has no state, and frames are looked at one by one")
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


@dataclass
class BundleExport(BundleFolder):
    """One export into an empty folder."""

    notes: dict[str, str] = field(default_factory=dict)
    """Per variant, what was decided on the way."""

    def __post_init__(self) -> None:
        variants = sum(len(PLANS[p]) for p in {"fp32", *self.request.precisions})
        # Graphs, the variants beside fp32, words, torch, and the proof of each variant.
        self.stages = Stages(planned=3 + (variants - 1) + variants)

    def run(self) -> dict[str, list[Gate]]:
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
                search: LayerSearch | None = None
                for variant, engines in PLANS["int8"].items():
                    if request.store == "fp16" and variant in MADE:
                        continue
                    with self.stages(f"int8 for {engines[0]}"):
                        search = search or self._search()
                        proto, self.notes[variant] = search.run(engines[0])
                        self._add_variant("int8", variant, self._tagged({"backbone": proto}, "int8"))
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

    def _manifest(self) -> Manifest:
        request = self.request
        run, train = request.checkpoint.run, request.checkpoint.run.train
        config = train.model
        inputs = self.variants["fp32"].graphs["stcf_step"].inputs
        state = next((v for v in inputs if v.name == "state_in"), None)
        return Manifest(
            **self._common("timm", config.mean, config.std, config.embed_dim),
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
            state=StateInfo(
                input="state_in",
                output="state_out",
                shape=[int(d) for d in state.shape],
                dtype=state.dtype,
                warmup=config.references,
            )
            if state is not None
            else None,
            references=config.references if config.stcf else 1,
            gap=config.gap if config.stcf else 1,
            store=request.store,
        )

    def _reference(self, embeddings: npt.NDArray[np.float32]) -> Rolled:
        """The torch model over frames in order, made without any carried state."""
        return torch_gates.ClipReference(self.model, self.request.checkpoint.run.train.model.gap, embeddings)

    def _torch_engine(self) -> Engine:
        return TorchEngine(self.model, self.request.size, self.encoder)

    def _tagged(self, protos: dict[str, onnx.ModelProto], precision: str) -> dict[str, onnx.ModelProto]:
        return tagged(protos, precision, self.checkpoint_sha256, self.request.size)

    # -- graphs ----------------------------------------------------------------------------------------------------

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

    def _search(self) -> LayerSearch:
        """The search for int8 layers, the same for every engine."""
        bundle = self._open()
        embeddings = self._embeddings(OrtEngine(bundle, "fp32"))
        quantizer = Quantizer(self.protos["backbone"], self._calibration())
        return LayerSearch(bundle, quantizer, embeddings, self.frames)

    def _calibration(self) -> list[npt.NDArray[np.uint8]]:
        if self.request.calibrate is None:
            return self.frames[:: max(1, len(self.frames) // CALIBRATION_FRAMES)]
        return torch_gates.spread_frames(self.request.calibrate, self.request.size, CALIBRATION_FRAMES)

    def _add_variant(self, precision: str, variant: str, protos: dict[str, onnx.ModelProto]) -> None:
        """Write the graphs that a variant has of its own; the others are those of fp32."""
        graphs = dict(self.variants["fp32"].graphs) if self.variants else {}
        for name, proto in protos.items():
            path = self.folder / (f"{name}.onnx" if variant == "fp32" else f"{name}.{variant}.onnx")
            weights = "int8" if name == "text" and self.request.text_weights == "int8" else precision
            if name == "decoder":
                # Parts of another decoder than this variant's own do not belong to it.
                graphs = {k: v for k, v in graphs.items() if k not in DECODER_PARTS}
            stored = store_fp16(proto) if self.request.store == "fp16" and name != "text" else proto
            graphs[name] = write_graph(stored, path, weights)
        engines = list(PLANS[precision][variant])
        self.variants[variant] = VariantInfo(precision=precision, engines=engines, graphs=graphs)

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

    def _verify(self, embeddings: npt.NDArray[np.float32]) -> dict[str, list[Gate]]:
        """Gates of every variant against torch; samples of what came out are left in the bundle."""
        request = self.request
        parity, found = prove(
            Subject(
                self._open(),
                request,
                self.specs,
                self.frames,
                self.encoder,
                embeddings,
                self._reference,
                self._torch_engine,
                self._on_labels if request.data else None,
            ),
            self.stages,
        )
        for variant, gates in found.items():
            verified = self._verified(variant, gates)
            self.variants[variant] = self.variants[variant].model_copy(update={"verified": verified})
        self._save_tensors(PARITY, parity.tensors(), sealed(self._manifest()))
        manifest = self._open().manifest
        about = request.card_file.read_text(encoding="utf-8") if request.card_file else ""
        write_text(self.folder / "README.md", model_card(manifest, found, about))
        return found

    def _on_labels(self, engine: Engine) -> torch_gates.OnLabels:
        """Scores of an engine on ``data``, streamed, with the data set's own class names."""
        return torch_gates.labelled_scores(engine, str(self.request.data), self.request.split, self.templates, self.gap)

    def _verified(self, variant: str, gates: list[Gate]) -> dict[str, Any]:
        record: dict[str, Any] = {
            "engine": f"onnxruntime {onnxruntime.__version__}",
            "provider": "CPUExecutionProvider",
            "frames": self.request.calibrate.name if self.request.calibrate else "generated",
            "passed": all(g.passed for g in gates),
            "gates": [g.record() for g in gates],
        }
        return record | ({"note": self.notes[variant]} if variant in self.notes else {})
