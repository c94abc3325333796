"""Embeddings of single words, kept from one run to the next.

CLIP reads a word in 80 sentences, a second or two of a processor's time. The embedding of each word is a small file in
the user's cache folder, below a folder named after all that it depends on: text graph, tokenizer and sentences. Nothing
else is stored, least of all which video it was for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from ov2vss_runtime.bundle.text import Encode, class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary

log = logging.getLogger("ov2vss.runtime")
MANY = 10
"""New words from which on a notice says that they are being read."""
KEPT = 50_000
"""Files of a folder; beyond that words are not kept any more."""


class WordCache:
    """Embeddings of the words of one text encoder.

    Every word is encoded by itself, so that it has the same bits whatever words stand beside it, kept or new.

    Args:
        encode: the text encoder.
        templates: its sentences.
        width: length of embeddings.
        key: what else they depend on (hashes of text graph and tokenizer).
    """

    def __init__(self, encode: Encode, templates: Sequence[str], width: int, key: Sequence[str]) -> None:
        self._encode, self._templates, self._width = encode, tuple(templates), width
        depends = json.dumps([list(key), list(templates), width]).encode()
        root = user_cache_path("ov2vss", appauthor=False)
        self.folder = root / "words" / hashlib.sha256(depends).hexdigest()[:32]

    def embeddings(self, rows: Vocabulary) -> npt.NDArray[np.float32]:
        """Unit vectors ``[len(rows), D]``; synonyms of a row are averaged."""
        found = {entry: vector for entry in rows.entries if (vector := self._read(entry)) is not None}
        new = [entry for entry in dict.fromkeys(rows.entries) if entry not in found]
        if len(new) >= MANY:
            log.warning("%d words are new: reading each in %d sentences, once", len(new), len(self._templates))
        for entry in new:
            found[entry] = class_embeddings(self._encode, Vocabulary((entry,)), self._templates)[0]
        self._write({entry: found[entry] for entry in new})
        return np.stack([found[entry] for entry in rows.entries]).astype(np.float32)

    def _path(self, entry: tuple[str, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(list(entry)).encode()).hexdigest()[:40]}.f32"

    def _read(self, entry: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
        """None where it is not kept, or what is kept is no unit vector of this length."""
        try:
            data = self._path(entry).read_bytes()
        except OSError:
            return None
        if len(data) != 4 * self._width:
            return None
        vector = np.frombuffer(data, "<f4").astype(np.float32)
        return vector if abs(float(np.linalg.norm(vector)) - 1) < 1e-3 else None

    def _write(self, new: dict[tuple[str, ...], npt.NDArray[np.float32]]) -> None:
        """Keep words; where that is not possible they are encoded again next time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if len(os.listdir(self.folder)) + len(new) > KEPT:
                return
            for entry, vector in new.items():
                path = self._path(entry)
                part = path.with_suffix(f".{os.getpid()}.part")
                part.write_bytes(np.asarray(vector, "<f4").tobytes())
                part.replace(path)
        except OSError as error:
            log.info("words are not kept: %s", error)
