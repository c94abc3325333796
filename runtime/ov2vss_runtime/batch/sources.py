"""The videos of an archive: files, folders, patterns, addresses in stores, and lists of them on standard input."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ov2vss_runtime.batch.records import Identity
from ov2vss_runtime.errors import OV2VSSError, VideoError
from ov2vss_runtime.video.images import is_still

STORE = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
"""What counts as an address in a store (fsspec); everything else is a name in the file system."""
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv",
          ".3gp", ".mxf", ".ogv", ".vob")  # fmt: skip
"""Suffixes that are taken from a folder."""
HEAD = 64 << 10
"""Bytes at the beginning of a file that tell it from others."""


def expand(given: Iterable[str], stdin: IO[str] | None = None) -> list[tuple[str, str]]:
    """Names of outputs and locations of the sources that a user names.

    A folder stands for all videos in it and below, whose outputs keep its folders; a folder without videos, but with
    pictures, is one source. ``-`` stands for a list on standard input, one a line.

    Raises:
        OV2VSSError: nothing is found there, or two sources would have the same name.
    """
    found: dict[str, str] = {}
    for text in _lines(given, stdin):
        for name, location in _sources(text):
            if found.get(name, location) != location:
                raise OV2VSSError(
                    f"{found[name]} and {location} would both be written as {name}",
                    "rename one, or give the folder that holds both: outputs then keep its folders",
                    usage=True,
                )
            found[name] = location
    if not found:
        raise OV2VSSError("no sources", "name videos, folders, patterns or addresses, or - for a list", usage=True)
    return list(found.items())


def _lines(given: Iterable[str], stdin: IO[str] | None) -> Iterator[str]:
    for text in given:
        if text == "-" and stdin is not None:
            yield from (line.strip() for line in stdin if line.strip())
        else:
            yield text


def _sources(text: str) -> Iterator[tuple[str, str]]:
    if STORE.match(text) and not text.startswith("file://"):
        yield from _stored(text)
        return
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())
        if files:
            for file in files:
                yield file.relative_to(path).with_suffix("").as_posix(), str(file.absolute())
            return
        if not any(is_still(file) for file in path.iterdir()):
            raise VideoError(f"{path} holds no video and no picture", "give another folder")
    elif not path.exists() and any(c in text for c in "*?["):
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if not files:
            raise VideoError(f"nothing is called like {text}", "check the pattern")
        for file in files:
            yield from _sources(str(file))
        return
    elif not path.exists():
        raise VideoError(f"{path} does not exist", "check the path")
    yield path.absolute().stem if path.is_file() else path.absolute().name, str(path.absolute())


def _stored(text: str) -> Iterator[tuple[str, str]]:
    store, path = _opened(text)
    try:
        if any(c in text for c in "*?["):
            files = sorted(store.glob(path))
        elif store.isdir(path):
            files = sorted(p for p in store.find(path) if PurePosixPath(p).suffix.lower() in VIDEOS)
        else:
            files = [path] if store.exists(path) else []
    except Exception as error:  # what a store raises is its own
        raise VideoError(f"{text} cannot be listed ({_told(error)})", "check the address and your rights") from None
    if not files:
        raise VideoError(f"{text} holds no video", "check the address")
    base = path.rstrip("/") + "/"
    for file in files:
        name = file.removeprefix(base) if file.startswith(base) else PurePosixPath(file).name
        yield str(PurePosixPath(name).with_suffix("")), store.unstrip_protocol(file)


def _opened(address: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it."""
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(address)
        return store, str(path)
    except (ImportError, ValueError) as error:
        raise VideoError(f"{address} cannot be opened ({_told(error)})", "install what fsspec asks for") from None


def _told(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


def is_stored(location: str) -> bool:
    """Whether a source has to be brought here before FFmpeg can read it."""
    return STORE.match(location) is not None


def identity(location: str) -> Identity:
    """What tells this version of a file from others.

    Raises:
        VideoError: it cannot be read.
    """
    if is_stored(location):
        store, path = _opened(location)
        try:
            info = store.info(path)
            with store.open(path, "rb", cache_type="none") as stream:
                head = stream.read(HEAD)
        except Exception as error:  # what a store raises is its own
            raise VideoError(f"{location} cannot be read ({_told(error)})", "check the address") from None
        tag = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if info.get(key)), None)
        return Identity(size=int(info["size"]), etag=tag, head=hashlib.sha256(head).hexdigest())
    try:
        facts = os.stat(location)
        with open(location, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise VideoError(f"{location} cannot be read ({error.strerror})", "check the path") from None
    return Identity(size=facts.st_size, mtime_ns=facts.st_mtime_ns, head=hashlib.sha256(head).hexdigest())


def bring(location: str, folder: Path) -> Path:
    """A copy of a file from a store, under its own name in a folder."""
    store, path = _opened(location)
    target = folder / PurePosixPath(path).name
    try:
        store.get_file(path, str(target))
    except Exception as error:  # what a store raises is its own
        raise VideoError(f"{location} cannot be read ({_told(error)})", "try again; the other files go on") from None
    return target
