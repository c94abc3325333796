"""The names of several data sets as one list of concepts, and what a pixel of each says about every word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss.data.relations import Relations
from ov2vss.data.source import VideoSet

TEACHER_CLASSES = "teacher_classes.txt"


class Concepts:
    """All names of several sets and of their teacher labels; equal names are one concept.

    Args:
        sets: the sets, in order.
        teacher: names of the teacher labels; id ``t`` of a teacher image is line ``t``, 0 is unsure.
        relations: which names may stand for others.
    """

    def __init__(self, sets: Sequence[VideoSet], teacher: Sequence[str], relations: Relations) -> None:
        self.names = list(dict.fromkeys([n for s in sets for n in s.classes.names] + list(teacher)))
        index = {name: k for k, name in enumerate(self.names)}
        self.own = [[index[n] for n in s.classes.names] for s in sets]
        self.teacher = [index[n] for n in teacher]
        self.relations = relations
        self.judged = np.array([[relations.judge(a, b) for b in self.names] for a in self.names], np.int8)

    def __len__(self) -> int:
        return len(self.names)

    def table(self, number: int, shown: Sequence[int], void: str) -> npt.NDArray[np.int8]:
        """What a pixel of a picture of set ``number`` says: ``[C + 1, C]``, 1 for words that it may be called by, -1
        for words that it is not, 0 for neither. Row ``C`` is a void pixel.

        Args:
            number: the set; its own classes exclude each other.
            shown: concepts that the picture's mask names.
            void: what a pixel without a label is: ``unknown``; ``object``, not the one labelled object; ``whole``,
                none of the set's classes.
        """
        count, own = len(self.names), self.own[number]
        table = np.ones((count + 1, count), np.int8)
        table[:count] = self.judged
        table[np.ix_(own, own)] = np.where(np.eye(len(own), dtype=bool), 1, -1)
        if void == "whole":
            table[count, own] = -1
        elif void == "object":
            table[count, list(shown)] = -1
            # A teacher may call the surroundings by a related word; the labelled object's own name they are not.
            others = [k for k in range(count) if k not in set(shown)]
            block = np.ix_(others, list(shown))
            table[block] = np.where(table[block] == 1, 1, -1)
        return table


def teacher_names(roots: Sequence[str]) -> list[str]:
    """Names of the teacher labels that lie beside the sets' folders, in ``teacher_classes.txt``."""
    for root in roots:
        file = Path(root).parent / TEACHER_CLASSES
        if file.is_file():
            return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return []
