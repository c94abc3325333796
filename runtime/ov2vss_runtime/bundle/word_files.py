"""Class lists in the files that people have: plain lists, JSON, YAML, tables with ids, label maps of labelling tools.

Every reader gives entries, the name of a class and then its synonyms, in the order of the ids where there are any.
What cannot be understood is an error; nothing is guessed into a class that nobody meant.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ov2vss_runtime.errors import VocabularyError

Entry = list[str]
REMEDY = "write one class a line, synonyms after commas"
NAMES = {"name", "names", "class", "classes", "label", "labels", "category", "categories", "word", "words", "readable",
         "classname", "labelname", "categoryname", "title", "klasse", "klassen"}  # fmt: skip
"""Heads of columns, and keys, that hold names."""
SYNONYMS = {"synonym", "synonyms", "alias", "aliases"}
IDS = {"id", "ids", "index", "idx", "classid", "labelid", "categoryid", "trainid", "number", "no", "nr", "value"}
HOLDERS = (*sorted(NAMES), "id2label", "label2id", "id2name", "items")
"""Keys under which a document keeps its list."""
_COLOUR = re.compile(r"#?[0-9a-fA-F]{6}")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_LABEL_MAP = re.compile(r"([^:]+):\d+,\d+,\d+:[^:]*:[^:]*")
_NUMBERED = re.compile(r"(\d+)\s*[:\t .)]\s*(\S.*)")
_ITEM = re.compile(r"\b(?:display_)?name\s*:\s*(?:'([^']*)'|\"([^\"]*)\")")
_MARKUP = re.compile(r"[\[\]{}<>=|]")


def read_entries(text: str, where: str, suffix: str = "") -> list[Entry]:
    """Entries of a class list.

    Args:
        text: all of the file.
        where: names it in errors.
        suffix: of the file's name (``.csv``), where it has one.
    """
    lines = text.splitlines()
    bare = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not bare:
        return []
    suffix = suffix.lower()
    if suffix == ".json" or bare[0][0] in "[{":
        return _document(_json(text, where, suffix), where)
    keyed = re.match(r"[\w-]+\s*:", bare[0]) and _plain_key(bare[0].split(":")[0]) in map(_plain_key, HOLDERS)
    if suffix in (".yaml", ".yml") or keyed or bare[0] == "---" or all(line.startswith("- ") for line in bare):
        return _document(_yaml(text, where), where)
    if suffix == ".pbtxt" or re.match(r"item\s*\{", bare[0]):
        return _items(text, where)
    if suffix == ".tsv" or (suffix != ".csv" and all("\t" in line for line in bare)):
        return _table(lines, "\t", where, suffix)
    if all(_LABEL_MAP.fullmatch(line) for line in bare):
        return [[line.split(":")[0]] for line in bare]
    if suffix == ".csv" or all(line.startswith('"') for line in bare):
        return _table(lines, _delimiter(bare), where, suffix)
    if len(bare) > 1 and (delimiter := _columns_with_ids(bare)) is not None:
        return _table(lines, delimiter, where, suffix)
    return _plain(lines, where)


def split_words(text: str) -> list[str]:
    """Classes on a command line: between semicolons or lines; quotes around one are taken off."""
    return [_unquoted(part) for part in re.split(r"[;\n]", text)]


def _plain(lines: Sequence[str], where: str) -> list[Entry]:
    """One class a line, or the syntax of the command line; ids in front of every line are taken off."""
    parts = [part for line in lines for part in split_words(line.split("#", 1)[0]) if part]
    for part in parts:
        if _MARKUP.search(part):
            raise VocabularyError(f"{where}: {part[:60]!r} is no class name", REMEDY)
    found = [_NUMBERED.fullmatch(part) for part in parts]
    ids = [int(match[1]) for match in found if match]
    if len(ids) == len(parts) > 1 and ids == list(range(ids[0], ids[0] + len(ids))):
        parts = [match[2] for match in found if match]
    return [_words(part) for part in parts]


def _words(text: str) -> Entry:
    """A name and its synonyms after commas."""
    return [" ".join(word.split()) for word in text.split(",")]


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _json(text: str, where: str, suffix: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise VocabularyError(f"{where}: a key stands there twice", "give every class its own id")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if suffix != ".json":
            return _yaml(text, where)  # ['road', 'car'], as Python writes it
        raise VocabularyError(f"{where}, line {error.lineno}: no JSON ({error.msg})", REMEDY) from None
    except RecursionError:
        raise VocabularyError(f"{where}: nested too deeply", REMEDY) from None


class _Loader(yaml.BaseLoader):
    """Everything is text (``no`` is a word, not a truth value), and a key that stands there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if len(set(keys)) < len(keys):
            raise yaml.MarkedYAMLError(problem="a key stands there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=True)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{where}, line {mark.line + 1}" if mark is not None else where
        raise VocabularyError(f"{place}: no YAML ({problem or 'not readable'})", REMEDY) from None


def _document(data: Any, where: str) -> list[Entry]:
    """The list within a JSON or YAML document."""
    if isinstance(data, dict):
        keys = {_plain_key(key): key for key in data}
        for holder in map(_plain_key, HOLDERS):
            if holder in keys and isinstance(data[keys[holder]], list | dict):
                return _document(data[keys[holder]], where)
        return _mapping(data, where)
    if isinstance(data, list):
        records = [item for item in data if isinstance(item, dict)]
        if records and len(records) == len(data) and any(len(r) > 1 or _named(r) is not None for r in records):
            return _records(records, where)
        if records and len(records) == len(data):
            return _mapping({key: value for record in records for key, value in record.items()}, where)
        return [_entry(item, where) for item in data]
    raise VocabularyError(f"{where}: holds no list of names", REMEDY)


def _mapping(data: dict[Any, Any], where: str) -> list[Entry]:
    """``{0: road}``, ``{road: 0}`` or ``{road: [carriageway]}``."""
    if not data:
        return []
    if all(_is_id(key) for key in data):
        _check_ids(list(data), where)
        if all(isinstance(value, dict) for value in data.values()):
            return [_record(data[key], where) for key in sorted(data, key=int)]
        return [_entry(data[key], where) for key in sorted(data, key=int)]
    if all(_is_id(value) for value in data.values()):
        _check_ids(list(data.values()), where)
        return [_entry(key, where) for key in sorted(data, key=lambda key: int(data[key]))]
    if all(isinstance(value, list) and all(isinstance(w, str) for w in value) for value in data.values()):
        return [[*_entry(key, where), *(w for word in value for w in _entry(word, where))]
                for key, value in data.items()]  # fmt: skip
    raise VocabularyError(f"{where}: holds no list of names", "give a list, ids with names, or the key 'names'")


def _records(records: list[dict[str, Any]], where: str) -> list[Entry]:
    ids = [next((r[k] for k in r if _plain_key(k) in IDS and _is_id(r[k])), None) for r in records]
    entries = [_record(record, where) for record in records]
    numbers = [int(k) for k in ids if k is not None]
    if len(set(numbers)) == len(records):
        entries = [entry for _, entry in sorted(zip(numbers, entries, strict=True), key=lambda pair: pair[0])]
    return entries


def _record(record: dict[str, Any], where: str) -> Entry:
    name = _named(record)
    if name is None:
        raise VocabularyError(f"{where}: an entry with {', '.join(map(str, record))} has no name", REMEDY)
    entry = _entry(name, where)
    for key, value in record.items():
        if _plain_key(key) in SYNONYMS and value:
            entry += [w for word in (value if isinstance(value, list) else [value]) for w in _entry(word, where)]
    return entry


def _named(record: dict[str, Any]) -> str | None:
    """The name that a record gives: ``readable`` and ``name`` before other keys."""
    keys = {_plain_key(key): key for key, value in record.items() if isinstance(value, str) and not _is_id(value)}
    return next((record[keys[k]] for k in ("readable", "name", *sorted(NAMES)) if k in keys), None)


def _entry(item: Any, where: str) -> Entry:
    if isinstance(item, str) and item.strip():
        return _words(item)
    if isinstance(item, list) and item and all(isinstance(word, str) for word in item):
        return [w for word in item for w in _words(word)]
    if isinstance(item, dict):
        return _record(item, where)
    raise VocabularyError(f"{where}: {str(item)[:60]!r} is no class name", REMEDY)


def _items(text: str, where: str) -> list[Entry]:
    """A label map of the TensorFlow object detection tools."""
    blocks = re.findall(r"item\s*\{([^}]*)\}", text)
    names = [[m[0] or m[1] for m in _ITEM.findall(block)] for block in blocks]
    shown = [re.search(r"display_name\s*:\s*['\"]([^'\"]*)", block) for block in blocks]
    if not blocks or not all(names):
        raise VocabularyError(f"{where}: an item has no name", REMEDY)
    return [_words(s[1] if s else n[0]) for s, n in zip(shown, names, strict=True)]


# -- tables ------------------------------------------------------------------------------------------------------------


def _delimiter(lines: list[str]) -> str:
    """The character between columns: outside quotes, semicolon, tab or comma."""
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines if not line.lower().startswith("sep=")]
    for mark in ";\t|":
        if any(mark in line for line in bare) and sum(mark in line for line in bare) >= len(bare) / 2:
            return mark
    return ","


def _columns_with_ids(lines: list[str]) -> str | None:
    """The delimiter, if every line but a head has a number in the same column."""
    for mark in ",;\t":
        rows = [[cell.strip() for cell in line.split(mark)] for line in lines]
        width = len(rows[0])
        if width > 1 and all(len(row) == width for row in rows) and _ids(rows[1:]) is not None:
            head = rows[0][_ids(rows[1:]) or 0]
            if _is_id(head) or _plain_key(head) in IDS:
                return mark
    return None


def _ids(rows: list[list[str]]) -> int | None:
    """The column that holds a distinct number in each row."""
    for column in range(len(rows[0]) if rows else 0):
        values = [row[column] for row in rows if column < len(row)]
        if len(values) == len(rows) and all(map(_is_id, values)) and len(set(values)) == len(values):
            return column
    return None


def _table(lines: Iterable[str], delimiter: str, where: str, suffix: str) -> list[Entry]:
    """Rows of names, perhaps with a head, ids, colours and synonyms."""
    kept = [line for line in lines if not line.lstrip().startswith("#") and not line.lower().startswith("sep=")]
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(kept, delimiter=delimiter, skipinitialspace=True)]
    except csv.Error as error:
        raise VocabularyError(f"{where}: no table ({error})", REMEDY) from None
    rows = [row for row in rows if any(row)]
    if len(rows) == 1 and len([cell for cell in rows[0] if cell]) > 2 - (delimiter != ","):
        if delimiter == ",":
            raise VocabularyError(
                f"{where}: one line of commas would be one class with synonyms",
                "put ';' between classes, or one a line",
            )
        return [_words(cell) for cell in rows[0] if cell]
    head = [_plain_key(cell) for cell in rows[0]] if rows else []
    named = next((head.index(k) for k in ("readable", "name", *sorted(NAMES)) if k in head), None)
    if named is not None and (suffix in (".csv", ".tsv") or len(head) > 1):
        also = [column for column, key in enumerate(head) if key in SYNONYMS]
        body = rows[1:]
        number = next((head.index(k) for k in ("id", *sorted(IDS)) if k in head), None)
        columns = [named, *also]
    else:
        number = _ids(rows)
        if number is None and len(rows) > 1 and (number := _ids(rows[1:])) is not None:
            rows = rows[1:]
        body, width = rows, max(map(len, rows), default=0)
        columns = [c for c in range(width) if not _all_values(rows, c)]
    if not columns:
        raise VocabularyError(f"{where}: no column of names", REMEDY)
    body = [row for row in body if any(c < len(row) and row[c] for c in columns)]
    if number is not None and body and all(number < len(row) and _is_id(row[number]) for row in body):
        _check_ids([row[number] for row in body], where)
        body = sorted(body, key=lambda row: int(row[number]))
    entries = [[w for c in columns if c < len(row) and row[c] for w in _cell(row[c])] for row in body]
    for entry in entries:
        if any(_MARKUP.search(word) for word in entry):
            raise VocabularyError(f"{where}: {', '.join(entry)[:60]!r} is no class name", REMEDY)
    return entries


def _cell(text: str) -> Entry:
    """A cell may hold synonyms of its own, after commas or semicolons."""
    return [w for part in text.split(";") if part.strip() for w in _words(part)]


def _all_values(rows: list[list[str]], column: int) -> bool:
    """Whether a column holds numbers or colours, and no names."""
    cells = [row[column] for row in rows if column < len(row) and row[column]]
    return not cells or all(_NUMBER.fullmatch(c) for c in cells) or all(_COLOUR.fullmatch(c) for c in cells)


def _is_id(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) is not None
    )


def _check_ids(ids: Sequence[Any], where: str) -> None:
    numbers = [int(k) for k in ids]
    twice = next((k for k in numbers if numbers.count(k) > 1), None) if len(set(numbers)) < len(numbers) else None
    if twice is not None:
        raise VocabularyError(f"{where}: id {twice} stands there twice", "give every class its own id")


def _plain_key(key: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(key).lower())


def looks_like_file(text: str) -> bool:
    """Whether somebody who writes this means a file: it has a folder or a suffix, and nothing of a list of words."""
    text = text.strip()
    if not text or any(mark in text for mark in ";\n,"):
        return False
    if text[0] in "~/\\" or text.startswith(("./", "../", ".\\", "..\\")) or re.search(r"\S[/\\]\S", text):
        return True
    return re.search(r"\S\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,6}$", text) is not None and " " not in Path(text).suffix
