"""The folder of an export: files beside its graphs, and the manifest as far as it has got."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from ov2vss.licenses import LICENSE, license_title
from ov2vss.text import TextEncoder
from ov2vss_export.export_request import ExportRequest
from ov2vss_runtime.atomic_files import write_json, write_text
from ov2vss_runtime.bundle.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    Bundle,
    FileInfo,
    Manifest,
    PreprocessInfo,
    VariantInfo,
    VocabularyInfo,
    file_sha256,
    vocabulary_key,
)

TOKENIZER, CACHE, PARITY = "tokenizer.json", "vocabulary.safetensors", "parity.safetensors"
RESIZE = "stretch; bilinear (OpenCV INTER_LINEAR), area averaging (INTER_AREA) when shrinking by more than 2"


@dataclass
class BundleFolder(ABC):
    """An empty folder that becomes a bundle.

    Attributes:
        request: what to export.
        folder: where.
        model: the network; each kind of export has its own.
        encoder: of texts.
        license: text that the weights are under, if any.
        variants: those that are written.
    """

    request: ExportRequest
    folder: Path
    model: Any
    encoder: TextEncoder
    license: str | None = None
    variants: dict[str, VariantInfo] = field(default_factory=dict)

    @property
    @abstractmethod
    def templates(self) -> tuple[str, ...]:
        """Prompts of a word."""

    @abstractmethod
    def _manifest(self) -> Manifest:
        """What is known of the bundle yet."""

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

    def _common(
        self, library: str, mean: Sequence[float], std: Sequence[float], width: int, synonyms: str = "average"
    ) -> dict[str, Any]:
        """Fields that manifests of all kinds of models have.

        Args:
            library: package that the image network comes from.
            mean, std: of normalisation.
            width: of embeddings.
            synonyms: see :class:`~ov2vss_runtime.bundle.bundle.VocabularyInfo`.
        """
        packages = ("ov2vss", "torch", library, "onnx", "onnxscript", "onnxruntime", "tokenizers")

        def file(name: str) -> FileInfo:
            return FileInfo(file=name, sha256=file_sha256(self.folder / name))

        return {
            "format_version": FORMAT_VERSION,
            "name": self.request.out.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "producer": {package: version(package) for package in packages},
            "variants": self.variants,
            "preprocess": PreprocessInfo(
                colour_order="RGB", size=self.request.size, resize=RESIZE, mean=list(mean), std=list(std)
            ),
            "tokenizer": file(TOKENIZER),
            "vocabulary": VocabularyInfo(
                entries=[list(entry) for entry in self.request.vocabulary.entries],
                templates=list(self.templates),
                embed_dim=width,
                synonyms=synonyms,
                key=self._key("fp32"),
            ),
            "vocabulary_cache": file(CACHE),
            "parity": file(PARITY),
        }

    def _license_info(self) -> dict[str, str] | None:
        if self.license is None:
            return None
        return {"file": LICENSE, "sha256": file_sha256(self.folder / LICENSE), "title": license_title(self.license)}

    def _key(self, variant: str) -> str:
        """Name of the default words' embeddings in the cache."""
        text = self.variants[variant].graphs["text"].sha256
        return vocabulary_key(self.request.vocabulary, self.templates, text, file_sha256(self.folder / TOKENIZER))
