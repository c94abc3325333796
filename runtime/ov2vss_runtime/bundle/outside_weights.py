"""Which other files an ONNX graph keeps weights in, read from its bytes: no library that knows ONNX is needed.

An engine given a graph in memory would look for such a file in the current folder. So every name is known before an
engine sees the graph, however the bytes were arranged.
"""

from __future__ import annotations

from collections.abc import Iterator

MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Of each kind of message, the fields that hold messages in which a tensor may lie (onnx.proto)."""
KEY, VALUE = 1, 2
"""Fields of an entry of ``external_data``."""


def outside_files(graph: bytes) -> set[str]:
    """Names of the files, as the graph spells them.

    Args:
        graph: an ONNX file.

    Raises:
        ValueError: these are no messages of that kind.
    """
    found: set[str] = set()
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(graph))]
    while waiting:
        kind, data = waiting.pop()
        if kind == "entry":
            parts = {number: bytes(value) for number, value in _fields(data)}
            if parts.get(KEY) == b"location":
                found.add(parts.get(VALUE, b"").decode("utf-8"))
            continue
        inner = MESSAGES[kind]
        waiting += [(inner[number], value) for number, value in _fields(data) if number in inner]
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields of a message that have a length; the others are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field ends after its message")
            yield number, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire}")
    if at != len(data):
        raise ValueError("the last field is cut off")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number does not end")
