"""Decoded training pictures of several sets in one memory-mapped file: no JPEG is decoded twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.data import open_files
from ov2vss.data.folder import FolderVideos
from ov2vss.data.images import read_ids
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.progress import Progress
from ov2vss_runtime.stream.preprocess import resize_frame

MAX_AREA = 480 * 640
"""Pixels of a stored picture; larger ones are shrunk."""


@dataclass(frozen=True)
class Place:
    """One labelled picture: its set, its name, its size and where its bytes begin."""

    number: int
    name: str
    height: int
    width: int
    offset: int


class CropCache:
    """Pictures ``[h, w, 3]``, their masks ``[h, w]`` (raw ids of the set) and teacher labels ``[h, w]`` (0: unsure).

    Args:
        folder: where the file lies; it is written if it is not there or is of other sets.
        roots: folders of the sets, in the VSPW layout.
        split: whose pictures.
    """

    def __init__(self, folder: Path, roots: Sequence[str], split: str = "train") -> None:
        self.folder = folder
        key = {"roots": [str(Path(r).resolve()) for r in roots], "split": split, "area": MAX_AREA}
        index = folder / "index.json"
        stored = json.loads(index.read_text()) if index.is_file() else {}
        if stored.get("key") != key:
            stored = {"key": key, "places": self._write(folder, roots, split)}
            write_json(index, stored)
        self.places = [Place(*p) for p in stored["places"]]
        self.bytes = np.memmap(folder / "pictures.bin", np.uint8, "r")

    @staticmethod
    def _write(folder: Path, roots: Sequence[str], split: str) -> list[tuple]:
        folder.mkdir(parents=True, exist_ok=True)
        places: list[tuple] = []
        offset = 0
        sets = [open_files(root, split) for root in roots]
        total = sum(len(s.labelled(v)) for s in sets for v in range(len(s.videos)))
        part = folder / "pictures.part"
        with part.open("wb") as stream, Progress(total, "decode", "picture") as bar:
            for number, (root, videos) in enumerate(zip(roots, sets, strict=True)):
                if not isinstance(videos, FolderVideos):
                    raise OV2VSSError(f"{root} is not in the VSPW layout", "several sets need folders of that layout")
                for video, name in enumerate(videos.videos):
                    teachers = Path(root) / "data" / name / "teacher"
                    for i in videos.labelled(video):
                        frame, mask = videos.frame(video, i), videos.mask(video, i)
                        file = teachers / f"{videos.frame_name(video, i)}.png"
                        teacher = read_ids(file).astype(np.uint8) if file.is_file() else np.zeros_like(mask)
                        factor = min(1.0, (MAX_AREA / (frame.shape[0] * frame.shape[1])) ** 0.5)
                        h, w = round(frame.shape[0] * factor), round(frame.shape[1] * factor)
                        ids = [cv2.resize(m, (w, h), interpolation=cv2.INTER_NEAREST_EXACT) for m in (mask, teacher)]
                        block = np.concatenate([resize_frame(frame, (h, w)), np.stack(ids, -1)], -1)
                        stream.write(np.ascontiguousarray(block).tobytes())
                        places.append((number, f"{name}/{videos.frame_name(video, i)}", h, w, offset))
                        offset += block.size
                        bar.update()
        part.replace(folder / "pictures.bin")
        return places

    def __len__(self) -> int:
        return len(self.places)

    def picture(self, i: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """RGB ``[h, w, 3]``, and mask and teacher labels ``[h, w, 2]``."""
        p = self.places[i]
        block = self.bytes[p.offset : p.offset + 5 * p.height * p.width].reshape(p.height, p.width, 5)
        return np.ascontiguousarray(block[..., :3]), np.ascontiguousarray(block[..., 3:])
