"""The bundle: a folder with ONNX graphs, tokenizer, class-embedding cache and a manifest that describes them all.

A bundle is loaded only if its format version is known and every file has the hash that the manifest states. Nothing in
it is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from ov2vss_runtime.bundle.clip_bundles import ClipOptions, find_clip_bundle, is_clip
from ov2vss_runtime.bundle.outside_weights import outside_files
from ov2vss_runtime.bundle.unknown_keys import unknown_keys
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import BundleError

log = logging.getLogger("ov2vss")
FORMAT_VERSION = 3
READ_VERSIONS = (2, 3)
"""Formats that this program loads: what format 3 added has defaults that are right for format 2."""
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 8 * 2**20
DEFAULT_BUNDLE = "street-lite"
GRAPHS = ("text", "backbone", "stcf_step", "decoder")
"""In the order in which they run. A bundle may do without the step."""
REQUIRED_GRAPHS = ("text", "backbone", "decoder")
DECODER_PARTS = ("text_refinement", "class_head")
"""The decoder in two parts, where a variant has them: for engines that run it in small chunks of classes, so that the
words are refined in one piece and not chunk by chunk."""
PRECISIONS = ("fp32", "fp16", "int8")
COMPUTED = ("bf16", "tf32")
"""Precisions that no file of a bundle is in: an engine makes them of the fp32 graphs."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorInfo(_Record):
    """One input or output: symbolic axes are strings."""

    name: str
    dtype: str
    shape: list[int | str]


class FileInfo(_Record):
    """A file of the bundle and its sha256."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        if not value or value in (".", "..") or any(c in value for c in "/\\:\0"):
            raise ValueError(f"{value!r} is not a plain file name")
        return value


class GraphInfo(FileInfo):
    opset: int
    weights: Literal["fp32", "fp16", "int8"]
    """How weights are stored. In an int8 text graph they are all that is int8."""
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    external: list[FileInfo] = []
    """Files of the bundle that hold weights of the graph (ONNX external data): those of graphs above 2 GB have to."""

    @property
    def identity(self) -> str:
        """A hash of all that the graph computes with."""
        if not self.external:
            return self.sha256
        return hashlib.sha256(" ".join((self.sha256, *(e.sha256 for e in self.external))).encode()).hexdigest()


class VariantInfo(_Record):
    """The graphs at one precision, as one or more engines take them.

    ``engines`` are the families that the files are made for: ``onnxruntime``, ``openvino``, ``tensorrt``. Variants may
    share files. ``verified`` is what the export measured: engine, frames, and a record for each gate.
    """

    precision: Literal["fp32", "fp16", "int8"]
    engines: list[str] = Field(min_length=1)
    graphs: dict[str, GraphInfo]
    verified: dict[str, Any] = {}
    made_from: str = ""
    """The variant that this one was made of on the user's machine; empty for what was exported."""

    @field_validator("graphs")
    @classmethod
    def _complete(cls, value: dict[str, GraphInfo]) -> dict[str, GraphInfo]:
        missing = [name for name in REQUIRED_GRAPHS if name not in value]
        if missing:
            raise ValueError(f"no graph {missing[0]}")
        return value


class StateInfo(_Record):
    """The carried tensor of the step: it starts with zeros, then ``warmup`` runs on the first frame, each fed its own
    output."""

    input: str
    output: str
    shape: list[int]
    dtype: str = "float32"
    warmup: int = Field(ge=0)
    start: Literal["zeros"] = "zeros"


class CutInfo(_Record):
    """Where shot changes are seen: an output of the backbone ``[levels, M, C]``, one of its levels, and the distance
    (1 - correlation) from which on neighbouring frames are of different shots.

    The default was measured with street-lite on eleven videos: 0.43 at most within a shot (a fast pan), 0.80 at least
    between frames of different videos.
    """

    output: str = "tokens"
    level: int = Field(default=2, ge=0)
    threshold: float = Field(default=0.6, ge=0)


class DenseInfo(_Record):
    """The unit features ``[D, h, w]`` that words are compared with: which output of the backbone they are, and how they
    were made (``trained``, or the recipe of a training-free bundle with its constants)."""

    output: str = "dense"
    recipe: str = "trained"
    constants: dict[str, float] = {}


class PreprocessInfo(_Record):
    colour_order: Literal["RGB"]
    size: tuple[int, int]
    """(H, W)."""
    resize: str
    """In words; it is :func:`ov2vss_runtime.stream.preprocess.resize_frame`."""
    mean: list[float]
    std: list[float]
    """What the graph normalises with (0..1): to be read by people."""
    normalised_in: Literal["graph"] = "graph"


class VocabularyInfo(_Record):
    """The bundle's default words, and those added later, whose embeddings are in the cache too."""

    entries: list[list[str]] = Field(min_length=1)
    templates: list[str] = Field(min_length=1)
    embed_dim: int
    added: dict[str, list[list[str]]] = {}
    """Name -> entries."""
    synonyms: Literal["average", "max"] = "average"
    """Whether synonyms are averaged into one embedding, or each has a row and the best of them counts."""
    key: str = ""
    """Name of the default words' embeddings (of the fp32 text graph) in the cache."""


class Manifest(_Record):
    """``manifest.json``. What has a default came with format 3 and may be missing."""

    format_version: int
    name: str
    created: str
    producer: dict[str, str]
    source: dict[str, Any]
    """Checkpoint and model; ``clip`` (model, tag, sha256) where the weights are a published CLIP's."""
    kind: Literal["trained", "training-free"] = "trained"
    variants: dict[str, VariantInfo] = Field(min_length=1)
    state: StateInfo | None = None
    distant: list[str] = ["context"]
    """Inputs of the step that are taken from the distant frame; those that the backbone does not give do not count."""
    references: int = Field(ge=1)
    gap: int = Field(ge=1)
    preprocess: PreprocessInfo
    dense: DenseInfo = DenseInfo()
    cut: CutInfo | None = CutInfo()
    temperature: float | None = None
    """What the decoder graph multiplies cosines with, where it does no more; recorded."""
    class_offset: float = 0.0
    """Added to the logits of classes that were seen in training (``source.trained_classes``)."""
    unknown_below: float = Field(default=0.0, ge=0, le=1)
    """Confidence below which a pixel is better called unknown: used where ``unknown`` pixels are asked for without a
    number."""
    temporal: dict[str, Any] = {}
    """Propagation between frames: method, share, gates, size of the flow, measured gain. Empty: as the runtime does."""
    store: Literal["fp32", "fp16"] = "fp32"
    """How the constants of fp32 graphs are stored."""
    tokenizer: FileInfo
    vocabulary: VocabularyInfo
    vocabulary_cache: FileInfo
    parity: FileInfo
    """What the trained model said, sampled: for ``ov2vss-export --verify-only``."""

    @property
    def memory(self) -> int | None:
        """Frames before a frame that it depends on, beside the distant one; None for all of them."""
        if self.temporal.get("method") == "affinity":
            return None
        return self.references * self.gap if self.state is not None else 0


def vocabulary_key(vocabulary: Vocabulary, templates: Sequence[str], text_sha256: str, tokenizer_sha256: str) -> str:
    """Name of a vocabulary's embeddings in the cache: a hash of all that they depend on."""
    parts = [[list(e) for e in vocabulary.entries], list(templates), text_sha256, tokenizer_sha256]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle whose hashes hold.

    Attributes:
        folder: where it lies.
        manifest: what it says.
        plans: folder with TensorRT plans that the user trusts; None for the user's cache folder. Plans are code, so
            none are taken from the bundle itself.
    """

    folder: Path
    manifest: Manifest
    plans: Path | None = None

    @classmethod
    def open(cls, bundle: str | Path = DEFAULT_BUNDLE, clip: ClipOptions | None = None) -> Bundle:
        """Open a folder, a built-in bundle by name, or a CLIP by its tag (:func:`find_bundle`), and check every file
        against the manifest."""
        folder = find_bundle(bundle, clip)
        manifest = read_manifest(folder)
        listed: list[FileInfo] = [manifest.tokenizer, manifest.vocabulary_cache, manifest.parity]
        graphs = [info for variant in manifest.variants.values() for info in variant.graphs.values()]
        listed += [file for info in graphs for file in (info, *info.external)]
        found: dict[str, str] = {}
        for info in listed:
            path = folder / info.file
            if path.is_symlink() or not path.is_file():
                raise BundleError(
                    f"bundle {folder}: {info.file} is missing", "copy the whole folder, or export it again"
                )
            if info.file not in found:
                found[info.file] = file_sha256(path)
            if found[info.file] != info.sha256:
                raise BundleError(
                    f"bundle {folder}: {info.file} is not the file that was exported (sha256 differs)",
                    "do not use it; copy the bundle again or export it again",
                )
        return cls(folder, manifest)

    def variant(self, precision: str = "fp32", engine: str = "onnxruntime") -> str:
        """Name of the variant that serves ``engine`` at ``precision``; else an error that lists what there is."""
        for name, variant in self.manifest.variants.items():
            if variant.precision == precision and engine in variant.engines:
                return name
        offered = [f"{v.precision} ({', '.join(v.engines)})" for v in self.manifest.variants.values()]
        raise BundleError(
            f"bundle {self.folder} has no precision {precision!r} for {engine}", f"it has: {'; '.join(offered)}"
        )

    def read(self, info: FileInfo) -> bytes:
        """Content of a file, which is what the manifest states: what is handed on is what was checked.

        Raises:
            BundleError: it is gone, or has changed since the bundle was opened.
        """
        path = self.folder / info.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})", "copy the bundle again") from None
        if hashlib.sha256(content).hexdigest() != info.sha256:
            raise BundleError(
                f"bundle {self.folder}: {info.file} is not the file that was exported (sha256 differs)",
                "do not use it; copy the bundle again or export it again",
            )
        return content

    def graph(self, variant: str, graph: str) -> bytes:
        """A graph of a variant, checked. It names no files for its weights but those that the manifest lists for it."""
        info = self.manifest.variants[variant].graphs[graph]
        content = self.read(info)
        try:
            outside = outside_files(content)
        except ValueError as error:
            raise BundleError(
                f"bundle {self.folder}: {info.file} is no ONNX graph ({error})", "export the bundle again"
            ) from None
        if unknown := sorted(outside - {file.file for file in info.external}):
            raise BundleError(
                f"bundle {self.folder}: {info.file} keeps weights in {unknown[0]!r}, which the manifest does not list, "
                "so that no hash covers it",
                'list it under "external" of the graph (docs/bundle.md), or export the graph with its weights inside',
            )
        return content

    def weights(self, variant: str, graph: str) -> dict[str, bytes]:
        """The files in which a graph keeps weights outside of itself, by name, checked."""
        return {file.file: self.read(file) for file in self.manifest.variants[variant].graphs[graph].external}

    @contextmanager
    def laid_out(self, variant: str, graph: str) -> Iterator[Path]:
        """A graph and its weights in a folder of this process alone, for engines that take no weights from memory: what
        they read are the bytes that were checked. The folder goes when the block ends."""
        with tempfile.TemporaryDirectory(prefix="ov2vss-", ignore_cleanup_errors=True) as name:
            path = Path(name) / self.manifest.variants[variant].graphs[graph].file
            path.write_bytes(self.graph(variant, graph))
            for file, content in self.weights(variant, graph).items():
                path.with_name(file).write_bytes(content)
            yield path

    def graph_file(self, variant: str, graph: str) -> Path:
        """Path of a graph of a variant."""
        return self.folder / self.manifest.variants[variant].graphs[graph].file

    @property
    def default_vocabulary(self) -> Vocabulary:
        return Vocabulary(tuple(tuple(e) for e in self.manifest.vocabulary.entries))

    def vocabulary_key(self, vocabulary: Vocabulary, variant: str) -> str:
        """Name of a vocabulary's embeddings in the cache, for one variant's text graph."""
        m = self.manifest
        text = m.variants[variant].graphs["text"].identity
        return vocabulary_key(vocabulary, m.vocabulary.templates, text, m.tokenizer.sha256)

    def cached_embeddings(self, vocabulary: Vocabulary, variant: str) -> npt.NDArray[np.float32] | None:
        """Stored class embeddings ``[N, D]`` of exactly these words, or None."""
        m = self.manifest
        key = self.vocabulary_key(vocabulary, variant)
        path = self.folder / m.vocabulary_cache.file
        try:
            tensors = load_safetensors(self.read(m.vocabulary_cache))
        except SafetensorError as error:
            raise BundleError(f"{path} is not a safetensors file ({error})", "export the bundle again") from None
        embeddings = tensors.get(key)
        if embeddings is not None and embeddings.shape != (len(vocabulary), m.vocabulary.embed_dim):
            raise BundleError(f"{path}: embeddings of shape {embeddings.shape}", "export the bundle again")
        return embeddings


def builtin_bundles() -> dict[str, Path]:
    """Bundles that are installed with the package, by name."""
    root = Path(__file__).parent.parent / "bundles"
    return {p.name: p for p in sorted(root.iterdir()) if (p / MANIFEST).is_file()} if root.is_dir() else {}


def find_bundle(bundle: str | Path, clip: ClipOptions | None = None) -> Path:
    """Folder of a bundle given by path, built-in name, or as ``clip:MODEL/TAG[@HxW]``, which is made if need be."""
    path = Path(bundle)
    if path.is_dir():
        return path
    if is_clip(bundle):
        return find_clip_bundle(str(bundle), clip)
    known = builtin_bundles()
    if str(bundle) in known:
        return known[str(bundle)]
    names = ", ".join(known) or "none"
    raise BundleError(f"bundle {str(bundle)!r} is neither a folder nor built in", f"built-in bundles: {names}")


def read_manifest(folder: Path) -> Manifest:
    """Parse ``manifest.json`` without touching any other file."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MANIFEST_LIMIT:
            raise BundleError(
                f"{path} has {os.path.getsize(path)} bytes", "a manifest is smaller; export the bundle again"
            )
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}", "give the folder of ov2vss-export"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({type(error).__name__})", "export the bundle again") from None
    found = data.get("format_version") if isinstance(data, dict) else None
    if found not in READ_VERSIONS:
        raise BundleError(
            f"{path} has format version {found!r}, this program reads {' and '.join(map(str, READ_VERSIONS))}",
            "export the bundle with the same release of ov2vss",
        )
    try:
        manifest = Manifest.model_validate(data)
        unknown = unknown_keys(data, manifest.model_dump(mode="json"))
        if unknown and found == FORMAT_VERSION:  # older formats had keys that are of no use any more
            log.warning("%s: keys that this release does not know are ignored: %s", path, ", ".join(unknown))
        return manifest
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}", "export the bundle again") from None
