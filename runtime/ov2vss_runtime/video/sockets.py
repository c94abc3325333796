"""Connections that FFmpeg opened, and how to end them from outside: its own time limits are seconds long."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}


class Connections:
    """The sockets of one address that were opened in this process since this was made, but for those of other objects.

    Works where a process can list its open files (Linux, macOS); elsewhere there is nothing to end, and FFmpeg's time
    limits have to do.

    Args:
        url: whose host and port the sockets are connected to; a URL without a port matches every new socket.
    """

    _lock = threading.Lock()
    _taken: set[int] = set()  # noqa: RUF012

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            self._port = parts.port or PORTS.get(parts.scheme.lower())
        except ValueError:
            self._port = None
        self._before, self._own = _sockets(), set[int]()

    def claim(self) -> None:
        """What was opened since belongs to this object, and no other one ends it."""
        with Connections._lock:
            self._own = {n for n in _sockets() - self._before - Connections._taken if self._is_ours(n)}
            Connections._taken |= self._own

    def release(self) -> None:
        """The connections are closed: their numbers may be given to others."""
        with Connections._lock:
            Connections._taken -= self._own
            self._own = set()

    def end(self) -> None:
        """Shut them down: a read or connection attempt that waits on them returns at once."""
        with Connections._lock:
            for number in self._own or {n for n in _sockets() - self._before - Connections._taken if self._is_ours(n)}:
                with contextlib.suppress(OSError), _twin(number) as sock:
                    sock.shutdown(socket.SHUT_RDWR)

    def _is_ours(self, number: int) -> bool:
        """Whether it is connected, or about to be, to the port of the address."""
        with contextlib.suppress(OSError), _twin(number) as sock:
            if sock.type != socket.SOCK_STREAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            try:
                return self._port in (None, sock.getpeername()[1])
            except OSError:
                return True  # not connected yet
        return False


@contextlib.contextmanager
def _twin(number: int) -> Iterator[socket.socket]:
    """A socket object over a copy of a descriptor."""
    sock = socket.socket(fileno=os.dup(number))
    try:
        yield sock
    finally:
        sock.close()


def _sockets() -> set[int]:
    """Descriptors of this process that are network sockets."""
    found = set()
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError, ValueError):
                    if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                        found.add(int(name))
            break
    return found
