"""Write src/character_tables.h: how Hugging Face's ``tokenizers`` sees every character.

Its tables are of several ages (general categories of 2015, normal forms of 2020, case of the compiler that built it),
so that no one version of libutf8proc gives its answers. The library itself is asked about every code point here; what
the tables say of a character is then the same whichever libutf8proc is installed. Run it when ``tokenizers`` has
changed::

    python sdk/tools/character_tables.py > sdk/src/character_tables.h
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Iterable

import tokenizers
from tokenizers import Regex
from tokenizers.normalizers import NFD, BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, Split

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(chosen: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring code points, first and last."""
    found: list[list[int]] = []
    for c in chosen:
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return [(first, last) for first, last in found]


def pieces(pattern: str) -> Callable[[str], bool]:
    """Whether a pattern matches all of a text."""
    split = Split(Regex(pattern), "removed", invert=True)
    return lambda text: [piece for piece, _ in split.pre_tokenize_str(text)] == [text]


def lower_by_utf8proc() -> Callable[[int], int]:
    library = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
    library.utf8proc_tolower.restype = ctypes.c_int32
    return library.utf8proc_tolower  # type: ignore[no-any-return]


def main() -> None:
    clean = BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    strip = BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    nfd, lower, bert = NFD(), Lowercase(), BertPreTokenizer()
    letter, number = pieces(r"\p{L}+"), pieces(r"\p{N}+")
    tables: dict[str, list[int]] = {
        name: [] for name in ("removed", "blank", "marks", "punctuation", "letters", "numbers", "decomposed", "ordered")
    }
    cased: list[tuple[int, str]] = []
    tolower = lower_by_utf8proc()
    for c in CODE_POINTS:
        text = chr(c)
        cleaned = clean.normalize_str(f"a{text}a")
        if cleaned == "aa":
            tables["removed"].append(c)
        elif cleaned == "a a":
            tables["blank"].append(c)
        parts = nfd.normalize_str(text)
        if parts != text:
            tables["decomposed"].append(c)
        elif strip.normalize_str(f"a{text}") == "a":
            tables["marks"].append(c)
        if nfd.normalize_str(f"\u0315{text}") == f"{text}\u0315" or (
            nfd.normalize_str(f"{text}\u0334") == f"\u0334{text}" and text != "\u0334"
        ):
            tables["ordered"].append(c)
        if len(bert.pre_tokenize_str(f"a{text}a")) == 3:
            tables["punctuation"].append(c)
        if letter(text):
            tables["letters"].append(c)
        if number(text):
            tables["numbers"].append(c)
        lowered = lower.normalize_str(text)
        if c != 0x130 and lowered != chr(tolower(c)):
            cased.append((c, lowered))
    print("// How Hugging Face's tokenizers sees characters: made by tools/character_tables.py, not by hand.")
    print(f"// tokenizers {tokenizers.__version__}")
    print("// clang-format off")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace ov2vss {\n")
    print("struct CharacterRange {\n    std::uint32_t first, last;\n};\n")
    meaning = {
        "removed": "taken out by BERT's cleaning",
        "blank": "blanks to BERT's cleaning",
        "marks": "nonspacing marks",
        "punctuation": "words of their own to BERT",
        "letters": "letters",
        "numbers": "numbers",
        "decomposed": "changed by normal form D",
        "ordered": "with a combining class",
    }
    for name, chosen in tables.items():
        found = ranges(chosen)
        print(f"// {meaning[name]}\nconstexpr CharacterRange k{name.capitalize()}[] = {{")
        for at in range(0, len(found), 6):
            print("    " + " ".join(f"{{{first:#x}, {last:#x}}}," for first, last in found[at : at + 6]))
        print("};\n")
    assert all(len(lowered) == 1 for _, lowered in cased)
    print("// lower case where libutf8proc 2.8 has another: from, to\nconstexpr CharacterRange kLower[] = {")
    for at in range(0, len(cased), 6):
        print("    " + " ".join(f"{{{c:#x}, {ord(lowered):#x}}}," for c, lowered in cased[at : at + 6]))
    print("};\n\n}  // namespace ov2vss")


if __name__ == "__main__":
    main()
