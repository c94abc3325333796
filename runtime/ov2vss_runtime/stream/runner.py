"""One source from its first frame to finished outputs."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from ov2vss_runtime.outputs.targets import Output, Targets, open_outputs
from ov2vss_runtime.stream.pipeline import Background
from ov2vss_runtime.stream.segmenter_stream import SegmenterStream
from ov2vss_runtime.stream.stream import Result

log = logging.getLogger("ov2vss.runtime")


def run(stream: SegmenterStream, targets: Targets, quiet: bool = False) -> dict[str, Any]:
    """Run a stream's source into outputs: reading, computing and writing overlap.

    Args:
        stream: opened with a source.
        targets: where results go.
        quiet: no bar of progress.

    Returns:
        What happened: ``frames`` that came out, ``computed`` that the network saw, ``held`` and ``propagated`` that
        have the labels of an earlier one, ``label_age`` in frames (mean and most), ``dropped`` that never went in,
        ``missing`` that the file lists or holds and that did not decode, ``seconds``, ``fps`` (of frames out),
        ``stages_ms`` (of each stage, per frame that came out; stages overlap, so that they add up to more than the
        time that passed), ``outputs``.
    """
    source = stream.source
    assert source is not None
    began = time.perf_counter()
    ages = LabelAges()
    total = source.frames if stream.limit is None else min(stream.limit, source.frames or stream.limit)
    with open_outputs(targets, source, stream.names, stream.stages) as (outputs, notices):
        for notice in notices:
            log.warning("%s", notice)
        bar = tqdm(total=total, desc=source.name, unit="frame", disable=quiet or _quiet(), leave=False)
        with bar, stream, Background() as writer:
            for result in stream:
                ages.add(result)
                writer.put(_write, outputs, result)
                bar.update()
    seconds = time.perf_counter() - began
    report = {
        "source": str(source.path or source.name),
        "frames": stream.index,
        "computed": stream.computed,
        "held": ages.held,
        "propagated": ages.propagated,
        "label_age": {"mean": ages.total / max(stream.index, 1), "most": ages.most},
        "dropped": stream.dropped,
        "missing": getattr(source, "missing", 0),
        "seconds": seconds,
        "fps": stream.index / seconds,
        "stages_ms": stream.stages.per_frame_ms(stream.index),
        "outputs": targets.paths(),
    }
    reconnects = getattr(source, "reconnects", 0)
    return report | ({"reconnects": reconnects} if reconnects else {})


def _quiet() -> bool | None:
    """No bar without a standard error, nor where that is no terminal (None: the bar looks itself)."""
    return True if sys.stderr is None else None


class LabelAges:
    """How old labels were when they were shown."""

    def __init__(self) -> None:
        self.held = self.propagated = self.total = self.most = 0

    def add(self, result: Result) -> None:
        self.held += result.held
        self.propagated += result.propagated
        self.total += result.age
        self.most = max(self.most, result.age)


def _write(outputs: list[Output], result: Result) -> None:
    for output in outputs:
        output.write(result)
