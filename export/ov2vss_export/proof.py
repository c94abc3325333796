"""The proof of an export: every variant against torch, on the frames of a roll-out and on drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ov2vss.text import TextEncoder
from ov2vss_export import torch_gates
from ov2vss_export.export_request import ExportRequest
from ov2vss_export.graphs import GraphSpec
from ov2vss_export.stages import Stages
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.gates import Gate, gate_other_frames, gate_reset
from ov2vss_runtime.bundle.parity import CLASSES, Parity, graph_inputs, run_graphs
from ov2vss_runtime.bundle.rollout import Rolled, rolled_logits, sampled_rollout, stream_maker, synthetic_frames
from ov2vss_runtime.engines.engine import Engine
from ov2vss_runtime.engines.onnxruntime import OrtEngine

MOST_PROMPTS = 64


@dataclass(frozen=True)
class Subject:
    """What is proven, and what torch says of it.

    Attributes:
        bundle: with all its variants.
        request: what was asked for.
        specs: the graphs in torch.
        frames: of the roll-out, ``[H, W, 3]`` uint8 at the bundle's size.
        encoder: text encoder.
        embeddings: class embeddings ``[N, D]`` of the default words, by the fp32 text graph.
        reference: a torch model over frames in order, without any carried state, for given embeddings.
        torch_engine: the torch model as an engine.
        on_labels: scores of an engine on labelled videos; None where none were given.
    """

    bundle: Bundle
    request: ExportRequest
    specs: Sequence[GraphSpec]
    frames: list[npt.NDArray[np.uint8]]
    encoder: TextEncoder
    embeddings: npt.NDArray[np.float32]
    reference: Callable[[npt.NDArray[np.float32]], Rolled]
    torch_engine: Callable[[], Engine]
    on_labels: Callable[[Engine], torch_gates.OnLabels] | None


class _Torch:
    """What torch gives, made once for all variants."""

    def __init__(self, subject: Subject, stages: Stages) -> None:
        self.drawn = synthetic_frames(subject.request.size)
        self.small = subject.embeddings[:CLASSES]
        with stages("torch"):
            self.graphs = torch_gates.graph_reference(subject.specs, subject.frames[0])
        self.scales = self.graphs.scales()
        with stages("torch"):
            logits = rolled_logits(subject.reference(subject.embeddings), subject.frames, "torch")
            self.truth = [torch_gates.Truth.of(values, subject.request.size) for values in logits]
        with stages("torch"):
            self.on_labels = subject.on_labels(subject.torch_engine()) if subject.on_labels else None


def prove(subject: Subject, stages: Stages) -> tuple[Parity, dict[str, list[Gate]]]:
    """Samples for later verification, and the gates of every variant."""
    torch = _Torch(subject, stages)
    templates, names = subject.bundle.manifest.vocabulary.templates, subject.request.vocabulary.names
    prompts = [templates[i % len(templates)].replace("{}", name) for i, name in enumerate(names[:MOST_PROMPTS])]
    expected: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    gates = {}
    for variant in subject.bundle.manifest.variants:  # fp32 is the first
        with stages(f"proof of {variant}"):
            gates[variant] = _prove_variant(subject, variant, torch, prompts, expected)
    return Parity(torch.scales, expected, torch.small), gates


def _prove_variant(
    subject: Subject,
    variant: str,
    torch: _Torch,
    prompts: list[str],
    expected: dict[str, dict[str, npt.NDArray[np.float32]]],
) -> list[Gate]:
    """Gates of a variant; its samples go into ``expected``. Those of fp32 are torch's own."""
    manifest = subject.bundle.manifest
    info, engine = manifest.variants[variant], OrtEngine(subject.bundle, variant)
    exact = info.graphs["text"].weights == "fp32"
    found = [torch_gates.gate_text(engine, subject.encoder, prompts, exact)]
    found += torch_gates.gate_graphs(engine, torch.graphs, info.graphs)
    make_stream = stream_maker(engine, manifest, subject.embeddings)
    rolled_out = torch_gates.rollout(make_stream, torch.truth, subject.frames)
    found += torch_gates.gate_rollout(rolled_out, info.precision)
    if torch.on_labels is not None and subject.on_labels is not None:
        data = str(subject.request.data)
        found.append(torch_gates.gate_miou(torch.on_labels, subject.on_labels(engine), info.precision, data))
    feeds = graph_inputs(manifest, torch.scales, engine.text_feed)
    samples = run_graphs(engine, feeds)
    rolled = sampled_rollout(stream_maker(engine, manifest, torch.small), torch.drawn)
    if variant == "fp32":
        samples |= torch_gates.sampled_outputs(subject.specs, feeds)
        samples |= {"rollout": sampled_rollout(lambda: subject.reference(torch.small), torch.drawn)}
    else:
        samples |= {"rollout": rolled}
    expected[variant] = samples
    found.append(gate_other_frames(rolled, expected["fp32"]["rollout"], info.precision))
    found.append(gate_reset(make_stream, subject.frames))
    return found
