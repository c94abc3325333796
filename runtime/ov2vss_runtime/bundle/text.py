"""Class embeddings: from words to one unit vector per class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.vocabulary import Vocabulary

STUFF = Path(__file__).parent.parent / "words" / "stuff.txt"
"""The usual words for a background."""
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


def word_rows(
    vocabulary: Vocabulary, synonyms: str = "average", background: tuple[str, ...] = ()
) -> tuple[Vocabulary, npt.NDArray[np.intp]]:
    """What has an embedding of its own, and the class of each of those rows.

    Args:
        vocabulary: N classes.
        synonyms: ``average``, one row a class; ``max``, a row for each synonym: the class of the best row wins.
        background: words with a row each that belong to no class, marked -1; those that are classes are left out.
    """
    entries: list[tuple[str, ...]] = []
    classes: list[int] = []
    for number, entry in enumerate(vocabulary.entries):
        for row in [(word,) for word in entry] if synonyms == "max" else [entry]:
            entries.append(row)
            classes.append(number)
    known = {word.casefold() for entry in vocabulary.entries for word in entry}
    others = [word for word in dict.fromkeys(background) if word.casefold() not in known]
    entries += [(word,) for word in others]
    return Vocabulary(tuple(entries)), np.array(classes + [-1] * len(others), np.intp)


def background_words(file: str) -> tuple[str, ...]:
    """All words of a list, synonyms too; ``stuff`` for the list that is installed with the package."""
    path = STUFF if file == "stuff" and not Path(file).exists() else Path(file)
    return tuple(word for entry in Vocabulary.from_file(path).entries for word in entry)
