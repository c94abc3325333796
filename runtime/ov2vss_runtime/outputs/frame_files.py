"""Names and folders of outputs that have one file a frame."""

from __future__ import annotations

import logging
from pathlib import Path

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.stream.stream import Result

log = logging.getLogger("ov2vss.runtime")


def frame_name(result: Result) -> str:
    """The name that the source gives a frame, or its number."""
    return result.name if result.name is not None else f"{result.index:06d}"


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"{folder} cannot be made ({error.strerror})", "choose another folder") from None


class EarlierFiles:
    """What an earlier run left in a folder; used as a context manager, it says at the end what was not written again.

    Args:
        folder: that files of frames go to.
        suffix: of these files, with its dot.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self._left = set(folder.rglob(f"*{suffix}"))

    def written(self, path: Path) -> None:
        """A file is of this run."""
        self._left.discard(path)

    def __enter__(self) -> EarlierFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._left:
            example = min(self._left).relative_to(self.folder)
            log.warning(
                "%s still holds %d files of an earlier run that this one did not write, such as %s; remove them",
                self.folder, len(self._left), example,
            )  # fmt: skip
