"""The file under FFmpeg's muxer."""

from __future__ import annotations

import os
from pathlib import Path


class Sink:
    """A file that keeps the first error of its writes: FFmpeg drops those of its last, buffered ones.

    Args:
        path: opened for writing at once, so that an unwritable place is known before anything is decoded.

    Attributes:
        error: the first error, or None.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.error = self.error or error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Close the file when it has reached the disk; raises the first error of any write."""
        try:
            if self.error is None:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if self.error is not None:
            raise self.error
