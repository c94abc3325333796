"""Label maps as indexed PNGs with a palette: id = index + 1, unknown = 0, like data-set masks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.overlay import palette

MaskFormat = Literal["palette", "gray"]


class MaskWriter:
    """Writes one PNG per frame into a folder: 8-bit with a palette up to 254 classes, 16-bit grey above.

    Args:
        folder: created if it does not exist.
        classes: number of words.
        form: ``palette``, or ``gray``: the ids as grey values, as every image library reads them, also OpenCV, which
            turns a palette into colours.
    """

    def __init__(self, folder: str | Path, classes: int, form: MaskFormat = "palette") -> None:
        self.folder, self.classes, self.form = Path(folder), classes, form
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VideoError(
                f"{self.folder} cannot be made ({error.strerror})", "choose another --masks folder"
            ) from None
        self._palette = np.concatenate([np.zeros((1, 3), np.uint8), palette(min(classes, 254))]).ravel().tolist()

    def write(self, name: str, labels: npt.NDArray[np.integer]) -> Path:
        """Write ``<folder>/<name>.png`` (to a temporary name, then renamed)."""
        ids = mask_ids(labels, self.classes)
        image = Image.fromarray(ids)
        if ids.dtype == np.uint8:
            image = image.convert("L")
            if self.form == "palette":
                image.putpalette(self._palette)
        path = self.folder / f"{name}.png"
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # names of frames may have folders
            image.save(part, format="PNG", compress_level=3)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise VideoError(
                f"{path} cannot be written ({error.strerror})", "free some space or choose another folder"
            ) from None
        return path


def mask_ids(labels: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Label indices -> ids on disk: index + 1, anything outside the vocabulary 0."""
    ids = np.where(labels < classes, labels.astype(np.int64) + 1, 0)
    return ids.astype(np.uint8) if classes <= 254 else ids.astype(np.uint16)
