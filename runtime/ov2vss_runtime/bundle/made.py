"""Variants that a bundle leaves out and that are made of its graphs when they are first used.

A bundle with ``store: fp16`` holds fp32 graphs, and int8 ones if asked for. Half precision and TensorRT's int8 follow
from them by editing nodes (:mod:`ov2vss_runtime.bundle.half_graphs`), which needs the package ``onnx``. What was made
is a complete bundle in the user's cache folder, under the hash of the bundle that it was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from platformdirs import user_cache_path

from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle import half_graphs
from ov2vss_runtime.bundle.bundle import (
    DECODER_PARTS,
    MANIFEST,
    Bundle,
    GraphInfo,
    VariantInfo,
    file_sha256,
)
from ov2vss_runtime.errors import BundleError

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("ov2vss.runtime")
RELEASE = 1
"""Counts up when what is made changes."""


class Recipe(NamedTuple):
    """How a variant is made.

    Attributes:
        precision, engines: of the variant.
        source: the variant that it is made of.
        graphs: those that it has of its own.
        convert: one graph.
    """

    precision: str
    engines: tuple[str, ...]
    source: str
    graphs: tuple[str, ...]
    convert: Callable[[onnx.ModelProto], onnx.ModelProto]


RECIPES = {
    "fp16": Recipe(
        "fp16", ("onnxruntime", "tensorrt"), "fp32", ("backbone", "stcf_step", "decoder"), half_graphs.to_half
    ),
    "int8-tensorrt": Recipe("int8", ("tensorrt",), "int8", ("backbone",), half_graphs.to_symmetric),
}
MADE = tuple(RECIPES)


def with_variant(bundle: Bundle, precision: str, engine: str) -> Bundle:
    """The bundle itself if it serves ``engine`` at ``precision``; else one in the cache folder that does, made now if
    it is not there yet.

    Raises:
        BundleError: it neither has the variant nor can it be made, or the package ``onnx`` is missing.
    """
    try:
        bundle.variant(precision, engine)
        return bundle
    except BundleError as error:
        missing = error
    recipes = {
        name: recipe
        for name, recipe in RECIPES.items()
        if bundle.manifest.store == "fp16"
        and recipe.precision == precision
        and engine in recipe.engines
        and recipe.source in bundle.manifest.variants
    }
    if not recipes:
        raise missing
    name, recipe = next(iter(recipes.items()))
    key = hashlib.sha256(f"{RELEASE} {file_sha256(bundle.folder / MANIFEST)}".encode()).hexdigest()[:16]
    root = user_cache_path("ov2vss", appauthor=False) / "bundles"
    folder = root / f"{bundle.manifest.name}-{name}-{key}"
    if not folder.is_dir():
        try:
            import onnx  # noqa: F401
        except ImportError:
            raise BundleError(
                f"bundle {bundle.manifest.name}: {precision} is made when it is first used, and onnx is not installed",
                "run: pip install onnx (or 'ov2vss[export]'), once",
            ) from None
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _alone(root / f"{folder.name}.lock"):
                if not folder.is_dir():
                    log.warning("%s: making its %s graphs, once, in %s", bundle.manifest.name, precision, folder)
                    _make(bundle, name, recipe, folder)
        except OSError as error:
            raise BundleError(
                f"{folder} cannot be written ({error.strerror or error})", "free the space, or set XDG_CACHE_HOME"
            ) from None
    return replace(Bundle.open(folder), plans=bundle.plans)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; where the system has no such locks, the last one to finish wins, with the same bytes."""
    with path.open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def _make(bundle: Bundle, name: str, recipe: Recipe, folder: Path) -> None:
    import onnx

    manifest = bundle.manifest
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        for path in bundle.folder.iterdir():
            if path.is_file() and path.name != MANIFEST:
                _link(path, part / path.name)
        source = manifest.variants[recipe.source]
        graphs = {k: v for k, v in source.graphs.items() if k not in DECODER_PARTS or "decoder" not in recipe.graphs}
        for graph in recipe.graphs:
            if graph not in graphs:
                continue
            if graphs[graph].external:
                raise BundleError(f"{graphs[graph].file} keeps weights in other files", f"export {name} from the run")
            model = recipe.convert(onnx.load_from_string(bundle.read(graphs[graph])))
            path = part / f"{graph}.{name}.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            info = graphs[graph].model_dump() | {"file": path.name, "sha256": file_sha256(path)}
            graphs[graph] = GraphInfo.model_validate(info | {"weights": recipe.precision})
        made = VariantInfo(
            precision=recipe.precision,  # type: ignore[arg-type]
            engines=list(recipe.engines),
            graphs=graphs,
            made_from=recipe.source,
        )
        changed = manifest.model_copy(update={"variants": manifest.variants | {name: made}})
        write_json(part / MANIFEST, changed.model_dump(mode="json"))
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file where that is possible, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
