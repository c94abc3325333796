"""The rows of embeddings that the decoder is given, and the words that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.label_map import Labels, label_type
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.pruning import ClassPruner


class DecodedRows:
    """A row a class, or several where synonyms count one by one; with candidates, those of the likely classes alone.

    Args:
        engine: which features the model has.
        options: of the stream: ``top_classes``, ``drop_absent``.

    Attributes:
        embeddings: of all rows, ``[rows, D]`` float32.
        shift: added to the logits of every row, ``[rows, 1, 1]``; None where nothing is.
        chosen: classes of the candidates of this shot.
    """

    embeddings: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32] | None
    _chosen_shift: npt.NDArray[np.float32] | None = None
    chosen: npt.NDArray[np.intp]

    def __init__(self, engine: Engine, options: StreamOptions) -> None:
        self._engine, self._options = engine, options
        self.pruner: ClassPruner | None = None
        if options.top_classes or options.drop_absent:
            if engine.can.dense is None:
                raise OV2VSSError("this model has no feature that shows candidates", "leave top classes out")
            self.pruner = ClassPruner(options.top_classes, options.drop_absent, engine.can.temperature)

    def set(
        self,
        embeddings: npt.NDArray[np.float32],
        class_of: npt.NDArray[np.intp],
        count: int,
        words: Sequence[Sequence[str]],
    ) -> None:
        """Other words: ``class_of`` every row (-1 for background), of ``count`` classes; the ``words`` of every row."""
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        self._class_of, self._count = class_of, count
        can = self._engine.can
        seen = np.array([any(w.casefold() in can.trained for w in row) for row in words], bool)
        self.shift = can.offset * seen.astype(np.float32)[:, None, None] if can.offset and seen.any() else None
        self.restart()

    def decode(self, features: FrameFeatures, guidance: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
        """Logits ``[rows, h, w]`` of the candidates, with the constant of the words that training saw, and what classes
        the rows are of."""
        classes, embeddings = self.candidates(features)
        logits = self._engine.decode(features, guidance, embeddings)
        shift = self.shift if embeddings is self.embeddings else self._chosen_shift
        return logits if shift is None else logits + shift, classes

    def restart(self) -> None:
        """A new shot: the candidates are chosen anew."""
        if self.pruner is not None:
            self.pruner.restart()

    def candidates(self, features: FrameFeatures) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Classes of the rows to decode (-1 for background), and their embeddings."""
        dense, keep = self._engine.can.dense, self._options.top_classes
        few = keep >= len(self.embeddings) and not self._options.drop_absent
        if self.pruner is None or dense is None or few:
            return self._class_of, self.embeddings
        if self.pruner.due():
            self.pruner.look(self._engine.feature(features, dense), self.embeddings)
            self.choose(self.pruner.active())
        else:
            self.pruner.active()
        return self.chosen, self._chosen_embeddings

    def choose(self, rows: npt.NDArray[np.intp]) -> None:
        """One array of embeddings a choice: engines upload them once."""
        self.chosen, self._chosen_embeddings = self._class_of[rows], self.embeddings[rows]
        self._chosen_shift = None if self.shift is None else self.shift[rows]

    def named(self, labels: Labels, classes: npt.NDArray[np.intp]) -> Labels:
        """Indices of decoded rows, of ``classes``, as indices into the words; background and unknown are unknown."""
        if np.array_equal(classes, np.arange(self._count)):
            return labels
        known = labels < len(classes)
        of_class = classes[np.where(known, labels, 0)]
        kind = label_type(self._count)
        found: Labels = np.where(known & (of_class >= 0), of_class, np.iinfo(kind).max).astype(kind)
        return found
