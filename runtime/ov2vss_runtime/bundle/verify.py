"""Is this bundle the trained model, on this machine and engine?

The export compares every variant with torch (:mod:`ov2vss_export.torch_gates`) and leaves samples of what came out in
the bundle's ``parity.safetensors``. :func:`verify_bundle` compares an engine with those samples, without torch and
without the checkpoint: every graph alone on inputs that :class:`numpy.random.RandomState` makes again anywhere, and a
roll-out with carried state over generated frames.
"""

from __future__ import annotations

from ov2vss_runtime.bundle.gates import (
    Gate,
    gate_class_counts,
    gate_manifest,
    gate_reset,
    gate_sampled_rollout,
    gate_stored,
)
from ov2vss_runtime.bundle.parity import Parity, graph_inputs, run_graphs
from ov2vss_runtime.bundle.rollout import sampled_rollout, stream_maker, synthetic_frames
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.errors import BundleError


def verify_bundle(engine: BundleEngine) -> list[Gate]:
    """Gates of an engine on this machine, against what its bundle says of itself."""
    bundle, variant = engine.bundle, engine.variant
    parity = Parity.of(bundle)
    made = bundle.manifest.variants[variant].made_from
    if made and made in parity.expected:
        parity.expected[variant] = parity.expected[made]
    if variant not in parity.expected:
        raise BundleError(f"bundle {bundle.folder} holds no reference for {variant}", "export the bundle again")
    manifest = bundle.manifest
    make_stream = stream_maker(engine, manifest, parity.embeddings)
    frames = synthetic_frames(engine.size)
    feeds = graph_inputs(manifest, parity.scales, engine.text_feed)
    gates = gate_manifest(bundle)
    gates += gate_stored(parity, engine, run_graphs(engine, feeds))
    rolled = sampled_rollout(make_stream, frames, True)
    as_exported = engine.rounds_as_exported and not made
    gates.append(gate_sampled_rollout(parity, variant, engine.precision, rolled, as_exported, bool(made)))
    gates.append(gate_reset(make_stream, frames))
    gates.append(gate_class_counts(engine, frames[0]))
    return gates
