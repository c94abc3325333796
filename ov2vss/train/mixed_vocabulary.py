"""The words of an iteration over many sets: an embedding of each concept, and those that a crop is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ov2vss.data.concepts import Concepts
from ov2vss.model.config import ModelConfig
from ov2vss.text import TextEncoder
from ov2vss.train.vocabulary import shipped_words
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary

WORDINGS = Path(__file__).parent.parent / "data" / "wordings"
MOST_SHOWN = 12
"""Concepts of a crop's own that it is compared with at most, the largest ones."""


def read_wordings(name: str) -> dict[str, list[str]]:
    """Lines ``name, wording, wording``; ``scenes`` holds those of ``street`` too. A wording may stand in several lines,
    and a name may have several lines."""
    files = [WORDINGS / f"{n}.txt" for n in ("street", "scenes")] if name == "scenes" else [Path(name)]
    if len(files) == 1 and not files[0].is_file():
        files = [WORDINGS / f"{name}.txt"]
    found: dict[str, list[str]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            words = [w for part in line.split("#", 1)[0].split(",") if (w := " ".join(part.split()))]
            if words:
                found.setdefault(words[0], []).extend(words[1:])
    return found


class MixedVocabulary:
    """Embeddings of all concepts, drawn anew for every iteration (see
    :class:`ov2vss.train.vocabulary.TrainingVocabulary`).

    A wording that is itself the name of a concept is taken only where the table of relations lets it stand for the
    class: ``top`` is no wording of a blouse where tops are another class.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        concepts: Concepts,
        config: ModelConfig,
        wordings: str,
        negatives: int,
        sampling: float,
        mixing: float,
    ) -> None:
        self.concepts, self.sampling, self.mixing, self.count = concepts, sampling, mixing, negatives
        names, prompts = concepts.names, config.prompts
        entries = Vocabulary(tuple((n,) for n in names))
        self.canonical = torch.from_numpy(class_embeddings(lambda t: encoder.encode(t).numpy(), entries, prompts))
        extra = read_wordings(wordings) if wordings and sampling else {}
        together = {frozenset((a, b)) for own in concepts.own for a in own for b in own}
        self.wordings: list[list[str]] = []
        for k, name in enumerate(names):
            words = [name]
            for word in dict.fromkeys(extra.get(name, ())):
                other = names.index(word) if word in names else None
                if other is None or (concepts.judged[k, other] >= 0 and frozenset((k, other)) not in together):
                    words.append(word)
            self.wordings.append(words)
        self.variants = [
            encoder.encode([t.replace("{}", w) for w in words for t in prompts]) for words in self.wordings if sampling
        ]
        taken = {w for words in self.wordings for w in words}
        pool = [w for w in shipped_words("negatives").names if w not in taken] if negatives or mixing else []
        self.pool = encoder.encode(pool) if pool else None

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Unit embeddings ``[C, D]`` of all concepts."""
        rows = self.canonical.clone()
        for k in np.flatnonzero(rng.random(len(rows)) < self.sampling) if self.variants else ():
            drawn = self.variants[k][int(rng.integers(len(self.variants[k])))]
            if self.mixing and self.pool is not None:
                other = self.pool[int(rng.integers(len(self.pool)))]
                drawn = F.normalize(drawn + float(rng.uniform(0, self.mixing)) * other, dim=-1)
            rows[k] = drawn
        return rows

    def negatives(self, rng: np.random.Generator) -> Tensor:
        """Unit embeddings ``[negatives, D]`` of words that no picture shows."""
        if self.pool is None or not self.count:
            return self.canonical[:0]
        return self.pool[torch.from_numpy(rng.choice(len(self.pool), self.count, replace=False))]

    def choose(
        self, rng: np.random.Generator, number: int, rows: npt.NDArray[np.int16], count: int
    ) -> npt.NDArray[np.int64]:
        """The ``count`` concepts that a crop is compared with: what it shows, then other classes of its set, then
        names of other sets.

        Args:
            rng: of the iteration.
            number: the crop's set.
            rows: concepts of its pixels, ``[h, w]``; C for void.
            count: of all together.
        """
        total = len(self.concepts)
        sizes = np.bincount(rows[(rows >= 0) & (rows < total)].ravel(), minlength=total)
        shown = [int(k) for k in np.argsort(-sizes, kind="stable")[:MOST_SHOWN] if sizes[k]]
        own = [k for k in self.concepts.own[number] if k not in shown]
        rng.shuffle(own)
        others = [k for k in range(total) if k not in shown and k not in own]
        rng.shuffle(others)
        # A third of the room, or what is left, stays for names of other sets.
        room = max(0, count - len(shown) - max(2, (count - len(shown)) // 3))
        return np.array((shown + own[:room] + others)[:count], np.int64)
