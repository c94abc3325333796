"""Names and folders of outputs that have one file a frame."""

from __future__ import annotations

from pathlib import Path

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.stream.stream import Result


def frame_name(result: Result) -> str:
    """The name that the source gives a frame, or its number."""
    return result.name if result.name is not None else f"{result.index:06d}"


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"{folder} cannot be made ({error.strerror})", "choose another folder") from None
