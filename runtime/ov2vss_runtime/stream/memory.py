"""What a stream remembers, to another process and back: ring, distant frames, candidates, past and latest labels."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import Engine
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream import saved
from ov2vss_runtime.stream.cuts import CutDetector
from ov2vss_runtime.stream.distant import DistantFrame, Seen
from ov2vss_runtime.stream.propagation import Propagator
from ov2vss_runtime.stream.result import Result
from ov2vss_runtime.stream.rows import DecodedRows

ARRAYS_OF_A_RESULT = ("labels", "confidence", "logits", "classes")


class Remembering(Protocol):
    """What a :class:`ov2vss_runtime.stream.stream.Stream` remembers, and what tells it from others."""

    engine: Engine
    names: list[str]
    index: int
    computed: int
    _ring: deque[tuple[int, Any]]
    _distant: DistantFrame
    _cuts: CutDetector | None
    _rows: DecodedRows
    _propagator: Propagator | None
    _latest: Result | None

    def reset(self) -> None: ...

    def _facts(self) -> dict[str, Any]: ...

    def _words(self, classes: npt.NDArray[np.intp]) -> tuple[int, bytes]: ...


def memory_of(stream: Remembering) -> bytes:
    """See :meth:`ov2vss_runtime.stream.stream.Stream.save`."""
    host, distant, latest = stream.engine.to_host, stream._distant, stream._latest
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, (_, state) in enumerate(stream._ring):
        arrays |= saved.prefixed(host(state), f"ring/{number}")
    times: dict[str, float | None] = {}
    for name, seen in (("first", distant.first), ("last", distant.last), ("kept", distant.kept)):
        if seen is not None:
            arrays |= saved.prefixed(host(seen.context), f"distant/{name}")
            times[name] = seen.time
    if stream._cuts is not None and stream._cuts.last is not None:
        arrays["cut/tokens"] = stream._cuts.last
    if stream._rows.pruner is not None:
        arrays |= saved.prefixed(stream._rows.pruner.save(), "pruner")
    if stream._propagator is not None:
        arrays |= saved.prefixed(stream._propagator.save(), "past")
    if latest is not None:
        for key in ARRAYS_OF_A_RESULT:
            if (array := getattr(latest, key)) is not None:
                arrays[f"latest/{key}"] = array
    version, numbers, gauss = distant.random.getstate()
    facts = stream._facts() | {
        "index": stream.index,
        "computed": stream.computed,
        "ring": [number for number, _ in stream._ring],
        "times": times,
        "seen": distant.seen,
        "random": [version, list(numbers), gauss],
        "names": stream.names,
        "latest": None if latest is None else [latest.index, latest.time, latest.names],
    }
    return saved.pack(facts, arrays)


def remember(stream: Remembering, data: bytes) -> None:
    """See :meth:`ov2vss_runtime.stream.stream.Stream.load`."""
    facts, arrays = saved.unpack(data)
    for name, mine in stream._facts().items():
        if facts.get(name) != mine:
            raise OV2VSSError(
                f"the saved stream has {name} {facts.get(name)}, this one {mine}",
                "load it into a stream that was made alike",
            )
    stream.reset()
    stream.index, stream.computed = facts["index"], facts["computed"]
    device, distant, rows = stream.engine.from_host, stream._distant, stream._rows
    stream._ring.extend((at, device(saved.part(arrays, f"ring/{k}"))) for k, at in enumerate(facts["ring"]))
    found = {k: Seen(device(saved.part(arrays, f"distant/{k}")), at) for k, at in facts["times"].items()}
    distant.first, distant.last, distant.kept = (found.get(k) for k in ("first", "last", "kept"))
    distant.seen = facts["seen"]
    version, numbers, gauss = facts["random"]
    distant.random.setstate((version, tuple(numbers), gauss))
    if stream._cuts is not None:
        stream._cuts.last = arrays.get("cut/tokens")
    if rows.pruner is not None and facts["names"] == stream.names and (kept := saved.part(arrays, "pruner")):
        rows.pruner.load(kept)
        rows.choose(kept["active"])
    if facts["latest"] is not None:
        index, time, names = facts["latest"]
        labels, confidence, logits, classes = (arrays.get(f"latest/{key}") for key in ARRAYS_OF_A_RESULT)
        assert labels is not None
        frame = np.broadcast_to(np.uint8(0), (*labels.shape, 3))
        stream._latest = Result(index, time, frame, labels, names, confidence, logits, classes)
    if stream._propagator is not None:
        latest = stream._latest
        same = latest is not None and latest.names == stream.names
        words = stream._words(latest.classes) if latest and same and latest.classes is not None else None
        stream._propagator.load(saved.part(arrays, "past"), words)
