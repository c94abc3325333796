"""TensorRT and TensorRT-RTX plans of a bundle: built from its ONNX files, kept with what they were built from.

A plan fits one graph file, one release of one library, one compute capability and one range of shapes. All of that is
its *key*, stored beside it. A plan with another key is never loaded: it is said why, and it is built again.

TensorRT-RTX builds ahead of time for any supported capability, without a GPU. TensorRT builds for the GPU it finds.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.bundle import GRAPHS, Bundle, TensorInfo, file_sha256
from ov2vss_runtime.engines.bundle_engine import cache_folder
from ov2vss_runtime.errors import BackendError, BundleError

log = logging.getLogger("ov2vss.runtime")
Library = Literal["tensorrt", "tensorrt-rtx"]
FORMAT = 1
PROFILES = {
    "text": {"B": (1, 16, 64), "L": (1, 16, 256)},
    "decoder": {"N": (1, 32, 128)},
    "text_refinement": {"N": (1, 32, 128)},
    "class_head": {"N": (1, 32, 128)},
}
"""Smallest, usual and largest size of every dynamic axis. More classes than the largest are run in chunks; the longest
legal prompt has some 200 tokens."""


def axis_sizes(graph: str, tensor: TensorInfo, axis: int | str) -> tuple[int, int, int]:
    """Smallest, usual and largest size of an axis of an input; an axis with a name of its own is that of the words, or
    in the text graph the first is that of the prompts."""
    if isinstance(axis, int):
        return axis, axis, axis
    known = PROFILES.get(graph, PROFILES["decoder"])
    if axis in known:
        return known[axis]
    return list(known.values())[0 if graph != "text" or tensor.shape.index(axis) == 0 else -1]


class PlanKey(BaseModel):
    """All that a plan depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    graph: str
    onnx_sha256: str
    precision: str
    library: str
    version: str
    compute: str
    """Compute capability, as ``SM89``."""
    profile: dict[str, tuple[int, int, int]]

    def difference(self, other: PlanKey) -> str:
        """Which fields differ, as a phrase; empty for equal keys."""
        mine, theirs = self.model_dump(), other.model_dump()
        return ", ".join(f"{k} {mine[k]} instead of {theirs[k]}" for k in mine if mine[k] != theirs[k])


class StoredPlan(BaseModel):
    """The file beside a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: PlanKey
    sha256: str


def import_tensorrt(library: Library) -> Any:
    """The Python package of a library, or an error with the command that installs it."""
    try:
        if library == "tensorrt-rtx":
            import tensorrt_rtx as trt
        else:
            import tensorrt as trt
    except ImportError:
        package = f"ov2vss[{library}]"
        raise BackendError(f"{library} is not installed", f"run: pip install '{package}'") from None
    return trt


def supported_capabilities() -> list[str]:
    """Compute capabilities that TensorRT-RTX builds for, as ``SM89``."""
    return sorted(n for n in dir(import_tensorrt("tensorrt-rtx").ComputeCapability) if n.startswith("SM"))


def plan_key(
    bundle: Bundle, variant: str, graph: str, library: Library, compute: str, precision: str | None = None
) -> PlanKey:
    """The key that a plan must have now, with the library that is installed."""
    return PlanKey(
        format=FORMAT,
        graph=graph,
        onnx_sha256=bundle.manifest.variants[variant].graphs[graph].sha256,
        precision=precision or bundle.manifest.variants[variant].precision,
        library=library,
        version=str(import_tensorrt(library).__version__),
        compute=compute,
        profile=PROFILES.get(graph, {}),
    )


def plan_file(folder: Path, key: PlanKey) -> Path:
    """``FOLDER/<library>-<compute>-<precision>/<graph>.plan``; the key stands in ``<graph>.json`` beside it."""
    return folder / f"{key.library}-{key.compute}-{key.precision}" / f"{key.graph}.plan"


def stored_plan(folder: Path, key: PlanKey) -> Path | None:
    """The plan of exactly this key, or None, and in the log why.

    The file's hash is checked too: a plan is code for the GPU.
    """
    path = plan_file(folder, key)
    try:
        stored = StoredPlan.model_validate_json(path.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s: its key cannot be read (%s); the plan is built again", path, type(error).__name__)
        return None
    if difference := stored.key.difference(key):
        log.warning("%s was built for %s; it is built again", path, difference)
        return None
    if not path.is_file() or file_sha256(path) != stored.sha256:
        log.warning("%s is missing or not the file that was built; it is built again", path)
        return None
    return path


def build_plan(
    bundle: Bundle, variant: str, graph: str, library: Library, compute: str, precision: str | None = None
) -> bytes:
    """Serialized plan of one graph, strongly typed: the precision is the ONNX file's own.

    Args:
        precision: ``tf32`` lets float32 products be computed in it; by default they are not.

    Raises:
        BackendError: the library is missing, cannot build for ``compute``, or fails.
        BundleError: the library cannot read the graph.
    """
    trt = import_tensorrt(library)
    path = bundle.graph_file(variant, graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if bundle.manifest.variants[variant].graphs[graph].external:
        raise BackendError(
            f"{path} keeps weights in other files, which {library} does not take", "use another --backend"
        )
    if not parser.parse(bundle.graph(variant, graph)):
        reason = str(parser.get_error(0)).splitlines()[0][:200] if parser.num_errors else "no reason given"
        raise BundleError(f"{path} cannot be read by {library} {trt.__version__} ({reason})", "export the bundle again")
    config = builder.create_builder_config()
    if precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and then fp32 would miss its own gates
    if library == "tensorrt-rtx":
        if compute not in supported_capabilities():
            raise BackendError(
                f"tensorrt-rtx does not build for {compute}", f"choose one of: {', '.join(supported_capabilities())}"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compute), 0)
    profile, dynamic = builder.create_optimization_profile(), False
    infos = {t.name: t for t in bundle.manifest.variants[variant].graphs[graph].inputs}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        axes = infos[tensor.name].shape
        if any(isinstance(axis, str) for axis in axes):
            dynamic = True
            sizes = [axis_sizes(graph, infos[tensor.name], a) for a in axes]
            profile.set_shape(tensor.name, *(tuple(size[k] for size in sizes) for k in range(3)))
    if dynamic:
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{library} {trt.__version__} cannot build {path.name} for {compute}", "see its messages")
    return bytes(plan)


def ensure_plans(
    bundle: Bundle, precision: str, library: Library, compute: str, folder: Path | None = None
) -> dict[str, tuple[Path, bool]]:
    """Plans of all graphs, by graph: the file, and whether it was built now. Those with the right key are kept.

    Args:
        folder: where plans are kept; None for the bundle's ``plans``, or else the user's cache folder.
    """
    variant = bundle.variant("fp32" if precision == "tf32" else precision, "tensorrt")
    folder = folder or bundle.plans or cache_folder("plans") / bundle.manifest.name
    plans = {}
    for graph in (g for g in GRAPHS if g in bundle.manifest.variants[variant].graphs):
        key = plan_key(bundle, variant, graph, library, compute, precision)
        path = stored_plan(folder, key)
        if path is None:
            path = plan_file(folder, key)
            data = build_plan(bundle, variant, graph, library, compute, precision)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(data)
            stored = StoredPlan(key=key, sha256=file_sha256(part))
            path.with_suffix(".json").unlink(missing_ok=True)
            part.replace(path)
            write_json(path.with_suffix(".json"), json.loads(stored.model_dump_json()))
            plans[graph] = (path, True)
        else:
            plans[graph] = (path, False)
    return plans
