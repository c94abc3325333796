"""Where outputs may go: never over a source, another output, a device or a pipe, and never two runs at one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ov2vss_runtime.errors import VideoError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def check_places(sources: Sequence[object], outputs: Sequence[tuple[Sequence[Path], Sequence[Path]]]) -> None:
    """Refuse outputs that would destroy something, before anything is opened.

    Args:
        sources: of all the runs that are about to begin.
        outputs: of each source, files and folders.

    Raises:
        VideoError: a file is a source, is named twice, or is no regular file; a folder is that of a source's images, or
            is named twice.
    """
    read = [Path(p) for p in (getattr(source, "path", None) for source in sources) if isinstance(p, Path)]
    pictures = [file for source in sources for file in getattr(source, "files", ())]
    taken: dict[Path, Path] = {}
    for files, folders in outputs:
        for path in files:
            if path.exists() and not path.is_file():
                raise VideoError(f"{path} is not a file", "choose another output")
            if any(_same(path, other) for other in (*read, *pictures)):
                raise VideoError(f"{path} is a source", "choose another output", usage=True)
        for folder in folders:
            if any(_same(folder, other) for other in read):
                raise VideoError(f"{folder} is a source", "choose another output", usage=True)
            under = next((place for place in folder.parents if any(_same(place, r) for r in read if r.is_file())), None)
            if under is not None:
                raise VideoError(f"{under} is a source", "choose another output", usage=True)
            if folder.exists() and not folder.is_dir():
                raise VideoError(f"{folder} is not a folder", "choose another output")
        for path in (*files, *folders):
            place = path.resolve()
            if place in taken:
                raise VideoError(f"{path} is named for two outputs", "give every output its own place", usage=True)
            taken[place] = path


def unlinked(path: Path) -> Path:
    """The file that a link points to, so that it is written and the link stays; any other path as it is."""
    follow = path.is_symlink() and (path.is_file() or not path.exists())  # links to devices and pipes are refused
    return path.resolve() if follow else path


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


@contextmanager
def held(path: Path, shown: Path) -> Iterator[None]:
    """Keep a place for this run: an unfinished file, made if need be, or a folder.

    The lock ends with the process, however that ends; what an earlier run left there is not in the way.

    Raises:
        VideoError: another run holds it, or it cannot be written.
    """
    if fcntl is None:
        yield
        return
    number = _lock(path, shown)
    try:
        yield
    finally:
        with suppress(OSError):
            mine = os.fstat(number)
            there = path.lstat()
            if not path.is_dir() and there.st_size == 0 and there.st_ino == mine.st_ino:
                path.unlink()  # nothing was written
        os.close(number)


def _lock(path: Path, shown: Path) -> int:
    while True:
        try:
            number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise VideoError(f"{shown} cannot be written ({error.strerror})", "choose another output") from None
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            raise VideoError(
                f"{shown} is being written by another run", "wait for it, or choose another output"
            ) from None
        except OSError:
            return number  # a file system without locks
        with suppress(OSError):
            if path.is_dir() or path.stat().st_ino == os.fstat(number).st_ino:
                return number
        os.close(number)  # it got its final name in the meantime: that file is not ours
