"""From sources to jobs: how each is cut, and why some are not."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from ov2vss_runtime.batch.packets import PacketTable
from ov2vss_runtime.batch.records import Job, Labelling, Model, Outputs, Packets, SourceFile, Span, run_lengths
from ov2vss_runtime.batch.sources import bring, identity, is_stored
from ov2vss_runtime.bundle.bundle import MANIFEST, Manifest, find_bundle
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.images import is_still


def bundle_sha256(bundle: str) -> str:
    """Hash of a bundle's manifest, which holds those of its files."""
    return hashlib.sha256((find_bundle(bundle) / MANIFEST).read_bytes()).hexdigest()


def refuse_whole_file_options(labelling: Labelling, outputs: Outputs, manifest: Manifest) -> None:
    """What looks at more than ``n * gap`` frames, or writes one file about all of them, is for whole files.

    Raises:
        OV2VSSError: it names the option.
    """
    for there, what, remedy in (
        (labelling.smooth is not False, "smoothing blends every frame with all before it", "add --no-smooth"),
        (labelling.keyframes != 1, "--keyframes moves labels on from frame to frame", "leave --keyframes out"),
        (labelling.reset_on_cut, "--reset-on-cut counts from the cut before", "leave --reset-on-cut out"),
        (labelling.top_classes > 0, "--top-classes chooses words by the shot so far", "leave --top-classes out"),
        (labelling.drop_absent > 0, "--drop-absent chooses words by the frames so far", "leave --drop-absent out"),
        (labelling.distant == "reservoir", "--distant reservoir draws from all frames so far", "use another --distant"),
        (outputs.coco, "--coco is one file about all frames", "leave --coco out"),
        (outputs.cvat, "--cvat is one folder about all frames", "leave --cvat out"),
        (manifest.memory is None, f"--bundle {manifest.name} carries its state on for ever", "use another --bundle"),
    ):
        if there:
            raise OV2VSSError(what, f"{remedy}, or plan whole files with --chunks 1", usage=True)


class Planner:
    """Makes the jobs of one source after the other.

    Args:
        model, labelling, outputs: of all of them.
        overlap: frames that a chunk is warmed by, in frames that the network sees.
        chunks: that a source is cut into, at most.
        rate: frames a second of images.
    """

    def __init__(
        self, model: Model, labelling: Labelling, outputs: Outputs, overlap: int, chunks: int, rate: Fraction
    ) -> None:
        self.model, self.labelling, self.outputs, self.chunks = model, labelling, outputs, chunks
        self.overlap, self.rate = overlap, rate

    def jobs(self, number: int, name: str, location: str) -> list[Job]:
        """The jobs of source ``number``.

        Raises:
            VideoError: it cannot be read.
        """
        if not is_stored(location) and (Path(location).is_dir() or is_still(Path(location))):
            source = SourceFile(name=name, location=location, images=True, rate=str(self.rate))
            return [self._whole(number, source, "images are one job" if self.chunks > 1 else "", None)]
        source = SourceFile(name=name, location=location, identity=identity(location))
        if not is_stored(location):
            return self._of_file(number, source, location)
        with tempfile.TemporaryDirectory(prefix="ov2vss-") as folder:
            return self._of_file(number, source, str(bring(location, Path(folder))))

    def _of_file(self, number: int, source: SourceFile, path: str) -> list[Job]:
        reader = VideoReader(path)
        table = PacketTable(path, reader.survey)
        count = min(len(table.entries), self.labelling.frames or len(table.entries))
        if self.chunks == 1:
            return [self._whole(number, source, "", count)]
        doubt = table.doubt or ("" if reader.origin is not None else "it has no clock")
        spans = doubt or self._spans(table, reader, count)
        if isinstance(spans, str):
            return [self._whole(number, source, spans, count)]
        source = source.model_copy(update={"packets": Packets.of(reader.survey)})
        return [
            Job(
                id=f"{number:05d}-{at:04d}",
                source=source,
                model=self.model,
                labelling=self.labelling,
                outputs=self.outputs,
                span=span,
                frames=span.stop - span.start,
            )
            for at, span in enumerate(spans)
        ]

    def _whole(self, number: int, source: SourceFile, why: str, frames: int | None) -> Job:
        return Job(
            id=f"{number:05d}-whole",
            source=source,
            model=self.model,
            labelling=self.labelling,
            outputs=self.outputs,
            why_whole=why,
            frames=frames,
        )

    def _spans(self, table: PacketTable, reader: VideoReader, count: int) -> list[Span] | str:
        """The chunks, or why there is only one."""
        spans = []
        origin, base = reader.origin or 0, reader.time_base
        for start, stop in cuts(count, self.chunks, self.labelling.every):
            overlap = min(start, self.overlap * self.labelling.every)
            first = start - overlap
            place = table.place(table.stamps[first])
            if isinstance(place, str):
                return f"frame {first} cannot be found: {place}"
            spans.append(
                Span(
                    start=start,
                    stop=stop,
                    overlap=overlap,
                    seek=place.seek,
                    skip=place.skip,
                    first=table.stamps[first],
                    steps=run_lengths(table.stamps[first:stop]),
                    first_time=float((table.stamps[0] - origin) * base),
                    last_time=float(reader.survey.last * base),
                )
            )
        return spans


def cuts(count: int, chunks: int, every: int = 1) -> Iterator[tuple[int, int]]:
    """Begin and end of at most ``chunks`` parts of ``count`` frames, of lengths that differ by at most ``every``; all
    begin at multiples of ``every``.

    >>> list(cuts(10, 4)), list(cuts(10, 4, 3)), list(cuts(2, 3))
    ([(0, 2), (2, 5), (5, 7), (7, 10)], [(0, 3), (3, 6), (6, 9), (9, 10)], [(0, 1), (1, 2)])
    """
    units = -(-count // every)
    chunks = min(chunks, units)
    marks = [every * (units * at // chunks) for at in range(chunks)] + [count]
    yield from pairwise(marks)
