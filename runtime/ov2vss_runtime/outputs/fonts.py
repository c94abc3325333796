"""Fonts for words in any script: what draws a legend, and what stands in for a letter that no font has."""

from __future__ import annotations

import functools
import logging
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

log = logging.getLogger("ov2vss.runtime")

PACKAGES = (
    ("font_roboto", "files/Roboto-Regular.ttf"),
    ("cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf"),
)
"""Fonts that were installed with the runtime: Latin, Greek and Cyrillic; Chinese, Japanese and Korean."""
FOLDERS = ("/usr/share/fonts", "/Library/Fonts", "/System/Library/Fonts", "C:/Windows/Fonts", "~/.fonts")
"""Where fonts lie on systems without fontconfig."""
_told: list[str] = []
LETTER_OF_NO_FONT = "\uffff"
"""A code point that no font draws: its picture is the box that stands for a missing letter."""


class Lettering:
    """Text of one size, drawn letter by letter with the first font that has the letter.

    The order is Pillow's own font, the packages above, what fontconfig recommends, and the system's font folders. A
    letter that none of them has is written as its code (``U+1F697``), so that two words never look the same; one log
    line says so.

    Args:
        points: size of the letters in pixels.
    """

    def __init__(self, points: int) -> None:
        self.points = points
        self._plain: Any = ImageFont.load_default(points)

    def length(self, text: str) -> int:
        """Width of a text in pixels."""
        return round(sum(font.getlength(piece) for piece, font in self._runs(text)))

    def draw(self, canvas: ImageDraw.ImageDraw, left: float, middle: float, text: str) -> None:
        """Draw white text that begins at ``left``; the middle of its line lies at ``middle``."""
        ascent, descent = self._plain.getmetrics() if isinstance(self._plain, FreeTypeFont) else (self.points, 0)
        for piece, font in self._runs(text):
            canvas.text((left, middle + (ascent - descent) / 2), piece, font=font, fill=(255, 255, 255), anchor="ls")
            left += font.getlength(piece)

    def _runs(self, text: str) -> list[tuple[str, FreeTypeFont]]:
        """The text in pieces of one font each."""
        if text.isascii():
            return [(text, self._plain)]
        runs: list[tuple[str, FreeTypeFont]] = []
        for letter in text:
            if unicodedata.category(letter) == "Cf" or 0xFE00 <= ord(letter) <= 0xFE0F:
                continue  # direction marks, joiners and variants have no picture of their own
            joins = unicodedata.category(letter).startswith("M") or letter == " "
            if joins and runs:
                piece, font = letter, runs[-1][1]
            else:
                path = _file_for(letter)
                font = self._plain if path is None else _font(path, self.points)
                piece = letter if path is not None or letter.isascii() else f"U+{ord(letter):04X}"
            if runs and runs[-1][1] is font:
                runs[-1] = (runs[-1][0] + piece, font)
            else:
                runs.append((piece, font))
        return runs


@functools.lru_cache(maxsize=64)
def _font(path: str, points: int) -> FreeTypeFont:
    return ImageFont.truetype(path, points)


@functools.lru_cache(maxsize=4096)
def _file_for(letter: str) -> str | None:
    """The first font file that draws a letter; None for Pillow's own, and for letters that no font draws."""
    if letter.isascii():
        return None
    for path in _candidates(letter):
        if has_letter(path, letter):
            return path
    if not _told:
        _told.append(letter)
        log.warning(
            "no font here draws U+%04X: codes stand for such letters in the legend; install a Noto font", ord(letter)
        )
    return None


def has_letter(path: str, letter: str) -> bool:
    """Whether a font draws a letter rather than the box of missing ones."""
    try:
        font = _font(path, 20)
    except OSError:
        return False
    return _picture(font, letter) not in (_picture(font, LETTER_OF_NO_FONT), b"")


def _picture(font: FreeTypeFont, letter: str) -> bytes:
    image = Image.new("L", (60, 60))
    ImageDraw.Draw(image).text((20, 40), letter, font=font, fill=255, anchor="ls")
    return image.tobytes() if image.getbbox() else b""


def _candidates(letter: str) -> Iterator[str]:
    for package, file in PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec is not None else []:
            path = Path(folder) / file
            if path.is_file():
                yield str(path)
    yield from _recommended(letter)
    yield from _installed()


def _recommended(letter: str) -> list[str]:
    """Font files that fontconfig has for a letter, the best first."""
    if shutil.which("fc-match") is None:
        return []
    command = ["fc-match", "-s", "-f", "%{file}\n", f"sans:charset={ord(letter):x}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line][:8]


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    files: list[str] = []
    for folder in FOLDERS:
        root = Path(folder).expanduser()
        if root.is_dir():
            files += [str(f) for f in sorted(root.rglob("*")) if f.suffix.lower() in (".ttf", ".otf", ".ttc")]
    return tuple(files)
