"""The words of a training iteration: a wording and a prompt per class, and some words that no pixel has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ov2vss.model.config import ModelConfig
from ov2vss.text import TextEncoder
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary


def shipped_words(name: str) -> Vocabulary:
    """A word list of the package (``street``, ``negatives``)."""
    return Vocabulary.from_file(Path(__file__).parent.parent / "data" / "wordings" / f"{name}.txt")


class TrainingVocabulary:
    """Embeddings for one iteration, drawn by the iteration's own random generator.

    A share ``sampling`` of the classes takes one of its wordings in one of the templates, so that the text space is
    used and not one point of it per class; the others take their mean over the templates. With ``mixing``, up to that
    much of an unrelated word is added to a drawn wording, which stands for wordings that are not in the list.
    ``negatives`` extra words follow as classes without pixels.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        classes: Vocabulary,
        config: ModelConfig,
        wordings: str = "",
        negatives: int = 0,
        sampling: float = 0.0,
        mixing: float = 0.0,
    ) -> None:
        extra: dict[str, tuple[str, ...]] = {}
        if wordings:
            known = Vocabulary.from_file(wordings) if Path(wordings).is_file() else shipped_words(wordings)
            extra = {entry[0]: entry[1:] for entry in known.entries}
        prompts, self.sampling, self.mixing = config.prompts, sampling, mixing
        self.canonical = torch.from_numpy(class_embeddings(lambda t: encoder.encode(t).numpy(), classes, prompts))
        self.variants: list[Tensor] = []
        for entry in classes.entries if sampling else ():
            words = list(dict.fromkeys([*entry, *extra.get(entry[0], ())]))
            self.variants.append(encoder.encode([t.replace("{}", w) for w in words for t in prompts]))
        self.count = negatives
        words = shipped_words("negatives").names if negatives or mixing else []
        taken = {w for entry in classes.entries for w in entry}
        self.pool = encoder.encode([w for w in words if w not in taken]) if words else None

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Embeddings ``[N + negatives, D]``, unit length; the classes come first."""
        rows = []
        for k, mean in enumerate(self.canonical):
            plain = rng.random() < 1 - self.sampling
            rows.append(mean if plain else self._wording(k, rng))
        if self.pool is not None and self.count:
            rows += list(self.pool[rng.choice(len(self.pool), self.count, replace=False)])
        return torch.stack(rows)

    def _wording(self, k: int, rng: np.random.Generator) -> Tensor:
        drawn = self.variants[k][int(rng.integers(len(self.variants[k])))]
        if not self.mixing or self.pool is None:
            return drawn
        other = self.pool[int(rng.integers(len(self.pool)))]
        return F.normalize(drawn + float(rng.uniform(0, self.mixing)) * other, dim=-1)
