"""Class embeddings: from words to one unit vector per class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.vocabulary import Vocabulary

Encode = Callable[[list[str]], npt.NDArray[np.float32]]
"""Texts -> unit embeddings ``[len(texts), D]``."""

BATCH = 64


def class_embeddings(encode: Encode, vocabulary: Vocabulary, templates: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """One unit vector per class ``[N, D]``: the mean over its synonyms and all prompt templates, normalised again.

    Args:
        encode: the text encoder.
        vocabulary: N classes.
        templates: prompts with ``{}`` where the word goes.
    """
    prompts = [template.replace("{}", word) for entry in vocabulary.entries for word in entry for template in templates]
    # Similar lengths together: less padding, and a batch never depends on how many classes there are.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    vectors: npt.NDArray[np.float32] | None = None
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        encoded = encode([prompts[i] for i in part])
        if vectors is None:
            vectors = np.empty((len(prompts), encoded.shape[1]), np.float32)
        vectors[part] = encoded
    assert vectors is not None  # a Vocabulary is never empty
    rows, cursor = [], 0
    for entry in vocabulary.entries:
        count = len(entry) * len(templates)
        mean = vectors[cursor : cursor + count].astype(np.float64).mean(0)
        rows.append(mean / max(np.linalg.norm(mean), 1e-12))
        cursor += count
    return np.asarray(rows, np.float32)
