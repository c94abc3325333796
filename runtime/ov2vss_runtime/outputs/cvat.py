"""Labels in the layout that CVAT imports as "Segmentation mask 1.1" (and other tools as Pascal VOC)::

    DIR/labelmap.txt                          name:r,g,b:: of every word
    DIR/ImageSets/Segmentation/default.txt    the frames
    DIR/SegmentationClass/<frame>.png         indexed PNGs in these colours

Zip the folder and upload it to a task whose labels have the same names and whose frames are called the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ov2vss_runtime.atomic_files import write_text
from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.frame_files import EarlierFiles, frame_name, make_folder
from ov2vss_runtime.outputs.masks import mask_ids
from ov2vss_runtime.outputs.overlay import palette
from ov2vss_runtime.stream.stream import Result


def distinct_colours(classes: int) -> npt.NDArray[np.uint8]:
    """``[classes + 1, 3]``: black for unknown pixels, then the palette; a colour that is taken is moved by a little."""
    colours, taken = [(0, 0, 0)], {(0, 0, 0)}
    for r, g, b in palette(classes).tolist():
        while (r, g, b) in taken:
            b = (b + 1) % 256
        taken.add((r, g, b))
        colours.append((r, g, b))
    return np.asarray(colours, np.uint8)


class CvatFolder:
    """The folder of one source.

    Args:
        folder: is made if it does not exist.
        names: the words, up to 254.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        if len(names) > 254:
            raise VideoError(f"{len(names)} words do not fit into indexed PNGs", "use at most 254, or COCO")
        if broken := [name for name in names if ":" in name]:
            raise VideoError(f"the word {broken[0]!r} has a colon, which labelmap.txt cannot hold", "reword it")
        self.folder, self.names = folder, names
        make_folder(folder / "SegmentationClass")
        make_folder(folder / "ImageSets/Segmentation")
        colours = distinct_colours(len(names))
        self._palette = colours.ravel().tolist()
        nothing = "background" if "background" not in names else "unlabelled"
        rows = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip([nothing, *names], colours.tolist(), strict=True)]
        write_text(folder / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *rows]) + "\n")
        self._frames: list[str] = []
        self._earlier = EarlierFiles(folder / "SegmentationClass", ".png")

    def write(self, result: Result) -> None:
        name = frame_name(result)
        image = Image.fromarray(mask_ids(result.labels, len(self.names)).astype(np.uint8)).convert("L")
        image.putpalette(self._palette)
        path = self.folder / "SegmentationClass" / f"{name}.png"
        part = path.with_name(path.name + ".part")
        self._earlier.written(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # names of frames may have folders
            image.save(part, format="PNG", compress_level=3)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise VideoError(
                f"{path} cannot be written ({error.strerror})", "free some space or choose another folder"
            ) from None
        self._frames.append(name)

    def __enter__(self) -> CvatFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._earlier.__exit__(*error)
        write_text(self.folder / "ImageSets/Segmentation/default.txt", "".join(f"{n}\n" for n in self._frames))
