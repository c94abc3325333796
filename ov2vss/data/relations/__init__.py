"""Which names of different data sets name the same thing, and which are parts or kinds of others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ov2vss.errors import OV2VSSError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Relations:
    """Pairs of names, unordered.

    Attributes:
        same: what is called by one name may be called by the other.
        kind: one is a part or a kind of the other: neither a hit nor a miss.
    """

    same: frozenset[frozenset[str]]
    kind: frozenset[frozenset[str]]

    @classmethod
    def read(cls, path: str | Path) -> Relations:
        """A table of lines ``a, b = c, d`` and ``a, b > c, d``; the name of a shipped one, or a file.

        Raises:
            OV2VSSError: there is no such file, or a line holds no relation.
        """
        file = Path(path)
        if not file.is_file():
            file = FOLDER / f"{path}.txt"
        if not file.is_file():
            shipped = sorted(p.stem for p in FOLDER.glob("*.txt"))
            raise OV2VSSError(f"relations {str(path)!r} do not exist", f"name a file, or one of: {shipped}")
        found: dict[str, set[frozenset[str]]] = {"=": set(), ">": set()}
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            bare = line.split("#", 1)[0].strip()
            if not bare:
                continue
            sign = next((s for s in found if s in bare), None)
            left, right = (part.split(",") for part in bare.split(sign, 1)) if sign else ([], [])
            names = [[" ".join(w.split()) for w in part] for part in (left, right)]
            if not sign or not all(w for part in names for w in part):
                raise OV2VSSError(f"{file}, line {number}: no relation in {bare!r}", "write a = b, c or a > b, c")
            found[sign] |= {frozenset((a, b)) for a in names[0] for b in names[1] if a != b}
        return cls(frozenset(found["="]), frozenset(found[">"] - found["="]))

    def judge(self, truth: str, word: str) -> int:
        """1 where a pixel of ``truth`` may be called ``word``, 0 where that is neither right nor wrong, else -1."""
        if truth == word:
            return 1
        pair = frozenset((truth, word))
        return 1 if pair in self.same else 0 if pair in self.kind else -1

    def stands_for(self, word: str, classes: list[str]) -> list[int]:
        """The classes of a set that a word counts for: its own name alone, if it is there; else all that are the
        same."""
        if word in classes:
            return [classes.index(word)]
        return [k for k, name in enumerate(classes) if self.judge(name, word) > 0]
