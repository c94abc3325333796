"""More words for a finished bundle: their embeddings join its cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.bundle import FORMAT_VERSION, MANIFEST, Bundle, FileInfo, builtin_bundles, file_sha256
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.engines.onnxruntime import OrtEngine
from ov2vss_runtime.errors import OV2VSSError


def add_vocabulary(folder: Path, name: str, words: Vocabulary) -> int:
    """Put a vocabulary and its embeddings into a bundle; ``ov2vss-run --vocab NAME`` then finds it.

    The old cache is in place until the manifest names the new one. Embeddings that are there already are kept.

    Returns:
        Number of embeddings that were computed (one set for every distinct text graph; 0 if all were there).

    Raises:
        OV2VSSError: the name is taken by other words, or the bundle belongs to the installed package.
    """
    if folder.resolve() in [built_in.resolve() for built_in in builtin_bundles().values()]:
        raise OV2VSSError(
            f"{folder.name} is a part of the installed package, which is not changed",
            f"copy it first (cp -r {folder} my-{folder.name}) and add the words to the copy",
        )
    bundle = Bundle.open(folder)
    manifest = bundle.manifest
    entries = [list(entry) for entry in words.entries]
    if manifest.vocabulary.added.get(name, entries) != entries:
        raise OV2VSSError(f"{folder} already has a vocabulary {name!r} with other words", "rename the file")
    old = folder / manifest.vocabulary_cache.file
    tensors, computed = load_file(old), 0
    for variant in manifest.variants:
        key = bundle.vocabulary_key(words, variant)
        if key not in tensors:
            engine = OrtEngine(bundle, variant)
            embeddings = class_embeddings(engine.encode_text, words, tuple(manifest.vocabulary.templates))
            tensors[key], computed = np.ascontiguousarray(embeddings), computed + len(words)
    part = folder / "vocabulary.part"
    save_file(tensors, part)
    part.chmod(old.stat().st_mode)
    digest = file_sha256(part)
    new = folder / f"vocabulary-{digest[:12]}.safetensors"
    part.replace(new)
    known = manifest.vocabulary.added | {name: entries}
    changed = manifest.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "vocabulary": manifest.vocabulary.model_copy(update={"added": known}),
            "vocabulary_cache": FileInfo(file=new.name, sha256=digest),
        }
    )
    write_json(folder / MANIFEST, changed.model_dump(mode="json"))
    if new != old:
        old.unlink()
    return computed
