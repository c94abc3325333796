"""``--verify-only BUNDLE``: the gates of a finished bundle, on this machine, without torch and onnx."""

from __future__ import annotations

from ov2vss_export.commands.gates import gate_records, print_gates
from ov2vss_export.commands.mode import Mode, Options
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.console import print_json
from ov2vss_runtime.errors import OV2VSSError


def run(options: Options) -> None:
    """Gates of a bundle on one engine of this machine, at some or all precisions.

    Raises:
        OV2VSSError: a gate fails.
    """
    from ov2vss_runtime.bundle.verify import verify_bundle
    from ov2vss_runtime.engines.backends import BACKENDS, load_engine

    assert options.verify_only is not None
    opened, backend, precisions = Bundle.open(options.verify_only), options.backend, options.precisions
    if precisions is None:
        family = BACKENDS[backend].family if backend in BACKENDS else ""
        offered = [v.precision for v in opened.manifest.variants.values() if family in v.engines]
        precisions = tuple(offered) or ("fp32",)
    gates = {p: verify_bundle(load_engine(opened, backend, p, device=options.device)) for p in precisions}
    print_gates(gates)
    if options.as_json:
        print_json({"bundle": str(opened.folder), "gates": gate_records(gates)})
    failed = [f"{gate.name} ({name})" for name, found in gates.items() for gate in found if not gate.passed]
    if failed:
        raise OV2VSSError(f"{opened.folder} is not what was exported: {', '.join(failed)}", "do not use it")


MODE = Mode(
    asked_by="--verify-only",
    asked=lambda options: options.verify_only is not None,
    takes=frozenset({"verify_only", "backend", "device", "precisions"}),
    run=run,
)
