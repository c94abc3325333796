"""Lists of class names: from a file, from the command line, or from a list.

One class a line; the first entry is the name, further entries after commas are synonyms whose embeddings are averaged
with it. ``#`` starts a comment. On the command line ``;`` stands between classes::

    road, carriageway
    person, pedestrian     # everybody on foot

Files may also be JSON, YAML or tables (:mod:`ov2vss_runtime.bundle.word_files`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ov2vss_runtime.bundle.word_files import looks_like_file, read_entries, split_words
from ov2vss_runtime.errors import VocabularyError

MAX_ENTRY = 200
"""Characters of one name or synonym; longer ones would be cut by every text encoder in use."""
MAX_CLASSES = 65_534
MAX_FILE = 64 << 20
"""Bytes; what is larger is no class list."""


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
        """Parse lines of ``name, synonym, synonym``; ``where`` names the source in errors."""
        bare = (line.split("#", 1)[0].strip() for line in lines)
        return cls.from_entries((line.split(",") if line else [] for line in bare), where)

    @classmethod
    def from_entries(cls, given: Iterable[Sequence[str]], where: str) -> Vocabulary:
        """Check names with their synonyms; an empty entry is passed over. ``where`` names the source in errors."""
        entries: list[tuple[str, ...]] = []
        seen: dict[str, int] = {}
        for number, entry in enumerate(given, start=1):
            if not entry:
                continue
            place = f"{where}, entry {number}"
            words = [" ".join(unicodedata.normalize("NFC", word).split()) for word in entry]
            if not all(words):
                raise VocabularyError(
                    f"{place}: empty name or synonym in {', '.join(words)!r}", "remove the stray comma"
                )
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
        """Read a file: one class a line, JSON, YAML or a table."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE:
                raise VocabularyError(f"class list {path} is {path.stat().st_size >> 20} MiB", "check the path")
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise VocabularyError(f"class list {path} does not exist", "check the path") from None
        except UnicodeDecodeError:
            raise VocabularyError(
                f"class list {path} is not UTF-8 text", "save it as UTF-8, one class a line"
            ) from None
        except OSError as error:
            raise VocabularyError(f"class list {path} cannot be read ({error.strerror})", "check the path") from None
        return cls.from_entries(read_entries(text, str(path), path.suffix), str(path))

    @classmethod
    def parse(cls, value: Words) -> Vocabulary:
        """A file, a list, ``"road; car, automobile"``, or a dictionary of synonyms.

        A string is taken as a path when such a file exists or when it looks like one: then it has to exist. A word that
        looks like a path is written with a semicolon (``"a/c;"``). An item of a list is a line, or itself a list of a
        name and its synonyms; ``{"car": ["automobile"], "sky": None}`` says the same by name.
        """
        if isinstance(value, Vocabulary):
            return value
        if isinstance(value, Path):
            return cls.from_file(value)
        if isinstance(value, str):
            try:
                exists = bool(value.strip()) and Path(value).expanduser().is_file()
            except (OSError, ValueError, RuntimeError):
                exists = False
            if exists:
                return cls.from_file(Path(value).expanduser())
            if looks_like_file(value):
                wrong = "is no file" if Path(value).expanduser().exists() else "does not exist"
                raise VocabularyError(
                    f"class list {value} {wrong}", f'check the path; if it is a word, write "{value};"'
                )
            where, text = "the words given", value.strip()
            if "#" in text and "\n" not in text:
                raise VocabularyError(
                    f"{where}: {text[text.index('#') :][:20]!r} would be a comment, as in a file", "leave # out"
                )
            if text[:1] in ("[", "{"):
                return cls.from_entries(read_entries(text, where), where)
            return cls.from_lines(split_words(text), where)
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
