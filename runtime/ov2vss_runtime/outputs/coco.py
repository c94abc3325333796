"""Labels as COCO annotations with run-length masks, which pycocotools, FiftyOne, CVAT and many others read.

One JSON object: ``images`` are the frames, ``categories`` the words (id = index + 1), and every word that a frame shows
is one annotation with ``iscrowd`` 1 and a compressed run-length mask, as COCO stores stuff. Unknown pixels are in none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.frame_files import frame_name, make_folder
from ov2vss_runtime.stream.label_map import Labels
from ov2vss_runtime.stream.stream import Result

GROUPS = 8
"""Characters that one run length takes at most (five bits each)."""


def runs(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts of the runs of equal labels, column by column as COCO counts, with the end of the last one; and a label
    for each run."""
    flat = labels.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]]).astype(np.int64)
    return starts, flat[starts[:-1]].astype(np.int64)


def compress(counts: npt.NDArray[np.int64]) -> str:
    """COCO's string of run lengths: from the third on the difference to the one before last, in groups of five bits,
    the lowest first, each as one character."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups = np.zeros((len(values), GROUPS), np.uint8)
    used = np.zeros((len(values), GROUPS), bool)
    more = np.ones(len(values), bool)
    for k in range(GROUPS):
        low, rest = values & 31, values >> 5
        used[:, k] = more
        more = more & np.where(low & 16, rest != -1, rest != 0)
        groups[:, k] = low + 48 + 32 * more
        values = rest
    return groups[used].tobytes().decode("ascii")


def rle(starts: npt.NDArray[np.int64], run_labels: npt.NDArray[np.int64], label: int) -> str:
    """The run-length mask of one label from :func:`runs`."""
    mine = np.flatnonzero(run_labels == label)
    borders = np.stack([starts[mine], starts[mine + 1]], axis=1).ravel()
    edges = np.concatenate([[0], borders, [starts[-1]]])
    counts = np.diff(edges)
    return compress(counts[:-1] if counts[-1] == 0 else counts)


class CocoFile:
    """All frames of one source in one file.

    Annotations go to ``<name>.part`` as they come; the file gets its name, and the list of frames, at the end.

    Args:
        path: the JSON file.
        names: the words.
        source: name of the source; frames are called ``<source>/<frame>.png``, as ``masks`` writes them.
    """

    def __init__(self, path: Path, names: list[str], source: str) -> None:
        self.path, self.names, self.source = path, names, source
        self._part = path.with_name(path.name + ".part")
        if path.is_dir():
            raise VideoError(f"{path} is a folder", "name a file for the COCO annotations")
        make_folder(path.parent)
        self._images: list[dict[str, Any]] = []
        self._count = 0
        categories = [{"id": k + 1, "name": name, "supercategory": ""} for k, name in enumerate(names)]
        try:
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise VideoError(f"{path} cannot be written ({error.strerror})", "choose another file") from None
        info = {"description": "made by ov2vss-run"}
        self._put(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories, ensure_ascii=False)},\n')
        self._put('"annotations": [')

    def write(self, result: Result) -> None:
        labels, number = result.labels, len(self._images) + 1
        if list(result.names) != self.names:
            raise VideoError("the words changed in the middle of a COCO file", "begin another stream for other words")
        height, width = labels.shape
        image: dict[str, Any] = {"id": number, "file_name": f"{self.source}/{frame_name(result)}.png"}
        image |= {"width": width, "height": height, "frame": result.index, "time": result.time}
        starts, run_labels = runs(labels)
        for label in np.unique(run_labels):
            if label >= len(self.names):
                continue
            mask = labels == label
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            self._count += 1
            annotation = {
                "id": self._count,
                "image_id": number,
                "category_id": int(label) + 1,
                "segmentation": {"size": [height, width], "counts": rle(starts, run_labels, int(label))},
                "area": int(mask.sum()),
                "bbox": [
                    int(columns[0]),
                    int(rows[0]),
                    int(columns[-1] - columns[0] + 1),
                    int(rows[-1] - rows[0] + 1),
                ],
                "iscrowd": 1,
            }
            self._put(("" if self._count == 1 else ",") + "\n" + json.dumps(annotation))
        self._images.append(image)

    def _put(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise VideoError(
                f"{self._part} cannot be written ({error.strerror})", "free some space or choose another file"
            ) from None

    def __enter__(self) -> CocoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # What was interrupted is closed as well, so that it can be read under its .part name.
            self._put('\n],\n"images": ' + json.dumps(self._images, ensure_ascii=False) + "}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None:
            self._part.replace(self.path)
