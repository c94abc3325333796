"""Lists of class names: from a file, from the command line, or from a list.

One class a line; the first entry is the name, further entries after commas are synonyms whose embeddings are averaged
with it. ``#`` starts a comment. On the command line ``;`` stands between classes::

    road, carriageway
    person, pedestrian     # everybody on foot
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ov2vss_runtime.errors import VocabularyError

MAX_ENTRY = 200
"""Characters of one name or synonym; longer ones would be cut by every text encoder in use."""
MAX_CLASSES = 65_534


Words: TypeAlias = "Vocabulary | str | Path | Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str] | None]"
"""What :meth:`Vocabulary.parse` takes."""


@dataclass(frozen=True)
class Vocabulary:
    """Ordered classes; ``entries[i]`` holds the name of class ``i`` and then its synonyms."""

    entries: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def from_lines(cls, lines: Iterable[str], where: str) -> Vocabulary:
        """Parse lines; ``where`` names the source in errors."""
        entries: list[tuple[str, ...]] = []
        seen: dict[str, int] = {}
        for number, raw in enumerate(lines, start=1):
            line = unicodedata.normalize("NFC", raw.split("#", 1)[0]).strip()
            if not line:
                continue
            place = f"{where}, entry {number}"
            words = [" ".join(word.split()) for word in line.split(",")]
            if not all(words):
                raise VocabularyError(f"{place}: empty name or synonym in {line!r}", "remove the stray comma")
            for word in words:
                if len(word) > MAX_ENTRY:
                    raise VocabularyError(
                        f"{place}: {word[:30]!r}... has {len(word)} characters", f"keep entries within {MAX_ENTRY}"
                    )
                if any(unicodedata.category(ch) in ("Cc", "Cs", "Co") for ch in word):
                    raise VocabularyError(f"{place}: {word!r} contains control characters", "remove them")
            for word in dict.fromkeys(w.casefold() for w in words):
                if word in seen:
                    raise VocabularyError(
                        f"{place}: {word!r} repeats entry {seen[word]}", "give every class its own words"
                    )
                seen[word] = number
            entries.append(tuple(dict.fromkeys(words)))
        if not entries:
            raise VocabularyError(f"{where}: no class names", "write one class a line")
        if len(entries) > MAX_CLASSES:
            raise VocabularyError(f"{where}: {len(entries)} classes", f"use at most {MAX_CLASSES}")
        return cls(tuple(entries))

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise VocabularyError(f"class list {path} does not exist", "check the path") from None
        except UnicodeDecodeError:
            raise VocabularyError(
                f"class list {path} is not UTF-8 text", "save it as UTF-8, one class a line"
            ) from None
        except OSError as error:
            raise VocabularyError(f"class list {path} cannot be read ({error.strerror})", "check the path") from None
        return cls.from_lines(text.splitlines(), str(path))

    @classmethod
    def parse(cls, value: Words) -> Vocabulary:
        """A file, a list, ``"road; car, automobile"``, or a dictionary of synonyms.

        A string is taken as a path when such a file exists or when it ends in ``.txt``. An item of a list is a line, or
        itself a list of a name and its synonyms; ``{"car": ["automobile"], "sky": None}`` says the same by name.
        """
        if isinstance(value, Vocabulary):
            return value
        if isinstance(value, Path):
            return cls.from_file(value)
        if isinstance(value, str):
            looks_like_file = value.strip().endswith(".txt") and ";" not in value
            try:
                exists = bool(value.strip()) and ";" not in value and Path(value).is_file()
            except (OSError, ValueError):
                exists = False
            if looks_like_file or exists:
                return cls.from_file(value)
            return cls.from_lines(value.split(";"), "the words given")
        if isinstance(value, Mapping):
            value = [(name, *_several(more)) for name, more in value.items()]
        return cls.from_lines([_line(item) for item in value], "the words given")


def _several(more: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if more is None else (more,) if isinstance(more, str) else tuple(more)


def _line(item: str | Sequence[str]) -> str:
    """A line of a class list; TypeErrors of what is none are said in words."""
    parts = [item] if isinstance(item, str) else list(item) if isinstance(item, Sequence) else [item]
    for part in parts:
        if not isinstance(part, str):
            raise VocabularyError(f"the words given: {part!r} is no text", "pass names as strings")
        if not isinstance(item, str) and "#" in part:
            raise VocabularyError(f"the words given: {part!r} contains #", "leave it out")
    return ", ".join(parts)
