"""Coloured labels over the frame, with a legend."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

LEGEND_CLASSES = 32
"""Vocabularies up to this size are listed whole; of larger ones the classes that the frame shows most."""

LEGEND_SHARE = 0.34
"""A legend that would cover more of the frame's height is left out."""

_BASE = (
    (70, 130, 180), (150, 90, 60), (240, 200, 60), (128, 64, 128), (240, 60, 200), (90, 160, 50), (230, 80, 30),
    (110, 110, 230), (40, 70, 220), (220, 20, 60), (0, 190, 190), (250, 170, 120), (0, 110, 90), (190, 220, 130),
    (120, 0, 40), (255, 255, 255), (90, 60, 150), (160, 160, 160), (255, 120, 160), (60, 60, 20),
)  # fmt: skip


def palette(classes: int) -> npt.NDArray[np.uint8]:
    """RGB colour per class ``[classes, 3]``: the first twenty chosen by hand, then hues by the golden ratio.

    A colour depends on the class index alone, so it is the same in every run.
    """
    colours = list(_BASE[:classes])
    for index in range(len(colours), classes):
        hue, ring = (index * 0.61803398875) % 1.0, (index // 7) % 3
        rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.7)[ring], (0.95, 0.8, 0.6)[ring])
        colours.append(tuple(round(255 * v) for v in rgb))
    return np.asarray(colours, np.uint8).reshape(classes, 3)


@lru_cache(maxsize=8)
def cached_overlay(names: tuple[str, ...], size: tuple[int, int], alpha: float) -> Overlay:
    """One :class:`Overlay` per vocabulary and frame size: its palette and legend are drawn once."""
    return Overlay(list(names), size, alpha)


class Overlay:
    """Draws label maps of one size and vocabulary over frames.

    Args:
        names: the words.
        size: (h, w) of the frames.
        alpha: share of the label colour in the blend, 0..1.
    """

    def __init__(self, names: list[str], size: tuple[int, int], alpha: float = 0.5) -> None:
        self.names, self.size, self.alpha = names, size, alpha
        self.colours = palette(len(names))
        self._legend = self._make_legend(list(range(len(names)))) if len(names) <= LEGEND_CLASSES else None

    def draw(self, frame: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """RGB frame ``[h, w, 3]`` and label map ``[h, w]`` -> new RGB frame; unknown pixels stay as they are."""
        unknown = labels >= len(self.names)
        colour = self.colours[np.where(unknown, 0, labels)] if unknown.any() else self.colours[labels]
        out = cv2.addWeighted(frame, 1 - self.alpha, colour, self.alpha, 0)
        if unknown.any():
            out[unknown] = frame[unknown]
        legend = self._legend
        if legend is None:
            counts = np.bincount(labels.ravel(), minlength=len(self.names))[: len(self.names)]
            top = [int(k) for k in np.argsort(-counts, kind="stable")[:LEGEND_CLASSES] if counts[k]]
            legend = self._make_legend(sorted(top))
        if legend.shape[0] <= LEGEND_SHARE * out.shape[0]:
            strip = out[out.shape[0] - legend.shape[0] :]
            cv2.addWeighted(strip, 0.25, legend, 0.75, 0, dst=strip)
        return out

    def _make_legend(self, classes: list[int]) -> npt.NDArray[np.uint8]:
        """A dark strip across the bottom with a swatch and a name per class, as many rows as they need."""
        height, width = self.size
        scale = max(0.35, min(1.2, height / 900))
        font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 1.6))
        line = round(30 * scale) + 2
        pad = max(3, round(8 * scale))
        x, y, places = pad, 0, []
        for k in classes:
            text = self.names[k].encode("ascii", "replace").decode()[:28]
            advance = line + cv2.getTextSize(text, font, scale, thickness)[0][0] + 2 * pad
            if x + advance > width and x > pad:
                x, y = pad, y + line
            places.append((k, text, x, y))
            x += advance
        image = np.full((y + line + pad, width, 3), 24, np.uint8)
        for k, text, left, top in places:
            box = round(line * 0.62)
            y0 = top + (line - box) // 2 + pad // 2
            cv2.rectangle(image, (left, y0), (left + box, y0 + box), tuple(map(int, self.colours[k])), -1)
            cv2.putText(image, text, (left + line, y0 + box - 2), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
        return image
