"""Coloured labels over the frame, with outlines and a legend."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.outputs.fonts import Lettering

LEGEND_CLASSES = 32
"""Vocabularies up to this size are listed whole; of larger ones the classes that the frame shows most."""
LEGEND_SHARE = 0.34
"""Largest share of the frame's height that a legend covers: what does not fit is left out, the rarest classes first."""
LONGEST_NAME = 28

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
        r, g, b = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.7)[ring], (0.95, 0.8, 0.6)[ring])
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return np.asarray(colours, np.uint8).reshape(classes, 3)


@dataclass(frozen=True)
class OverlayStyle:
    """How labels are shown.

    Attributes:
        alpha: share of the label colour in the blend, 0..1.
        outlines: draw the borders between labels.
        legend: list the words.
        side_by_side: the frame as it was on the left, the overlay on the right.
    """

    alpha: float = 0.5
    outlines: bool = False
    legend: bool = True
    side_by_side: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise OV2VSSError(f"alpha={self.alpha}", "give a share of the colour, 0 to 1")


class Overlay:
    """Draws label maps of one size and vocabulary over frames.

    Args:
        names: the words.
        size: (h, w) of the frames.
        style: or only its alpha.
    """

    def __init__(self, names: list[str], size: tuple[int, int], style: OverlayStyle | float = 0.5) -> None:
        self.names, self.size = names, size
        self.style = style if isinstance(style, OverlayStyle) else OverlayStyle(alpha=style)
        self.colours = palette(len(names))
        self._fixed = self._legend(list(range(len(names)))) if len(names) <= LEGEND_CLASSES else None

    @property
    def out_size(self) -> tuple[int, int]:
        """(h, w) of what :meth:`draw` gives."""
        return (self.size[0], 2 * self.size[1]) if self.style.side_by_side else self.size

    def draw(self, frame: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """RGB frame ``[h, w, 3]`` and label map ``[h, w]`` -> new RGB frame; unknown pixels stay as they are."""
        alpha = self.style.alpha
        unknown = labels >= len(self.names)
        some = bool(unknown.any())
        colour = self.colours[np.where(unknown, 0, labels)] if some else self.colours[labels]
        out = cv2.addWeighted(frame, 1 - alpha, colour, alpha, 0)
        if some:
            out[unknown] = frame[unknown]
        if self.style.outlines:
            self._outline(out, labels)
        if self.style.legend:
            self._add_legend(out, labels)
        return np.concatenate([frame, out], axis=1) if self.style.side_by_side else out

    def _outline(self, out: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        """A dark line along the borders, thicker in large frames."""
        edge = np.zeros(labels.shape, np.uint8)
        edge[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).view(np.uint8)
        edge[1:] |= (labels[1:] != labels[:-1]).view(np.uint8)
        thick = max(1, round(self.size[0] / 480))
        if thick > 1:
            edge = cv2.dilate(edge, np.ones((thick, thick), np.uint8))
        out[edge.view(bool)] = (16, 16, 16)

    def _add_legend(self, out: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
        legend = self._fixed
        if legend is None or legend.shape[0] > LEGEND_SHARE * self.size[0]:
            counts = np.bincount(labels.ravel(), minlength=len(self.names))[: len(self.names)]
            top = [int(k) for k in np.argsort(-counts, kind="stable")[:LEGEND_CLASSES] if counts[k]]
            legend = self._legend(sorted(top))
            while top and legend.shape[0] > LEGEND_SHARE * self.size[0]:
                top = top[: len(top) - max(1, len(top) // 4)]
                legend = self._legend(sorted(top))
            if not top:
                return
        strip = out[out.shape[0] - legend.shape[0] :]
        cv2.addWeighted(strip, 0.25, legend, 0.75, 0, dst=strip)

    def _legend(self, classes: list[int]) -> npt.NDArray[np.uint8]:
        """A dark strip across the bottom with a swatch and a name per class, as many rows as they need."""
        height, width = self.size
        points = max(9, min(36, round(height / 34)))
        letters = Lettering(points)
        line, pad = round(1.5 * points), max(3, points // 3)
        x, y, places = pad, 0, []
        for k in classes:
            name = self.names[k]
            text = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
            advance = line + letters.length(text) + 2 * pad
            if x + advance > width and x > pad:
                x, y = pad, y + line
            places.append((k, text, x, y))
            x += advance
        image = Image.new("RGB", (width, y + line + pad), (24, 24, 24))
        draw = ImageDraw.Draw(image)
        for k, text, left, top in places:
            box, middle = round(line * 0.62), top + line // 2 + pad // 2
            colour = tuple(map(int, self.colours[k]))
            draw.rectangle((left, middle - box // 2, left + box, middle + box // 2), fill=colour)
            letters.draw(draw, left + line, middle, text)
        return np.asarray(image)
