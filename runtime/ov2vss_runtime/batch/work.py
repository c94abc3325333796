"""One job, from its source to its finished part: the same wherever it is done."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from ov2vss_runtime.batch.folder import BatchFolder
from ov2vss_runtime.batch.planning import bundle_sha256
from ov2vss_runtime.batch.records import Done, Job, Model, SourceFile, Span
from ov2vss_runtime.batch.sources import bring, identity, is_stored
from ov2vss_runtime.errors import BundleError, VideoError
from ov2vss_runtime.outputs.targets import Output, Targets, open_outputs
from ov2vss_runtime.stream.pipeline import AHEAD, Background, Prefetch
from ov2vss_runtime.stream.runner import run
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.segmenter_stream import SegmenterStream
from ov2vss_runtime.stream.stream import Result
from ov2vss_runtime.video.decode import Damage, Damaged
from ov2vss_runtime.video.file import VideoReader
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import Source, SourceOptions, VideoFrame

log = logging.getLogger("ov2vss.runtime")
MASKS, LINES, ARRAYS, VIDEO, COCO, CVAT = "masks", "lines.jsonl", "npz", "overlay.mp4", "coco.json", "cvat"
"""Names in a part."""


class Untrusted(Exception):
    """A chunk is not what the packets said: its source has to be done in one piece."""


@dataclass
class Worker:
    """What a process keeps from one job to the next: the model, the embeddings of its words, and of the last source the
    file, if it was brought from a store, and the distant frames. Memory does not grow with the number of jobs.

    Args:
        bundle: where the bundle is on this machine, if not where the plan says.
    """

    bundle: str | None = None
    _model: Model | None = None
    _segmenter: Segmenter | None = None
    _embeddings: Any = None
    _source: SourceFile | None = None
    _primed: bytes = b""
    _primed_for: object = None
    _path: Path | None = None
    _brought: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list)

    def work(self, job: Job, folder: BatchFolder) -> Done:
        """Do a job and publish its part; if it is done already, say what it said.

        Raises:
            OV2VSSError: the source or the bundle is not what the plan says, or cannot be used.
        """
        if (earlier := folder.done(job.id)) is not None:
            return earlier
        began, user = time.perf_counter(), os.times()
        with folder.new_part(job.id) as part:
            segmenter = self._loaded(job.model)
            path = self._opened(job.source)
            frames = missing = 0
            untrusted = ""
            try:
                if job.span is None:
                    frames, missing = self._whole(job, segmenter, path, part)
                else:
                    frames = self._chunk(job, job.span, segmenter, path, part)
            except Untrusted as doubt:
                log.warning("%s: %s; the file is done in one piece", job.source.location, doubt)
                untrusted = str(doubt)
                for file in sorted(part.rglob("*"), reverse=True):
                    file.rmdir() if file.is_dir() else file.unlink()
            now = os.times()
            used = now.user - user.user + now.system - user.system
            done = Done(
                job=job.id,
                frames=frames,
                seconds=time.perf_counter() - began,
                user_seconds=used,
                untrusted=untrusted,
                missing=missing,
            )
            folder.publish(part, done)
        return folder.done(job.id) or done

    def close(self) -> None:
        """Remove what was brought from stores."""
        while self._brought:
            self._brought.pop().cleanup()
        self._source = self._path = None

    # -- what is kept ----------------------------------------------------------------------------------------------

    def _loaded(self, model: Model) -> Segmenter:
        if self._segmenter is None or self._model != model:
            place = self.bundle or model.bundle
            if bundle_sha256(place) != model.sha256:
                raise BundleError(f"bundle {place} is not the one of the plan", "copy that one here, or plan again")
            if self._segmenter is not None:
                self._segmenter.close()
            self._segmenter = Segmenter.load(place, model.engine, model.precision, model.threads, model.device)
            self._model, self._embeddings, self._primed_for = model, None, None
        return self._segmenter

    def _opened(self, source: SourceFile) -> Path:
        """The file behind a source, which is what it was when it was planned."""
        if self._path is not None and self._source == source:
            return self._path
        if source.identity is not None and identity(source.location) != source.identity:
            raise VideoError(f"{source.location} has changed since it was planned", "plan again in another folder")
        self.close()
        path = Path(source.location)
        if is_stored(source.location):
            self._brought.append(tempfile.TemporaryDirectory(prefix="ov2vss-"))
            path = bring(source.location, Path(self._brought[-1].name))
        self._source, self._path = source, path
        return path

    # -- whole sources ---------------------------------------------------------------------------------------------

    def _whole(self, job: Job, segmenter: Segmenter, path: Path, part: Path) -> tuple[int, int]:
        """What ``ov2vss-run`` does with one source."""
        outputs, labelling = job.outputs, job.labelling
        source: Source = open_source(path, SourceOptions(Fraction(job.source.rate)))
        stream = segmenter.stream(
            source,
            job.model.vocabulary,
            labelling.gap,
            labelling.distant,
            self._embeddings,
            labelling.stream_options(outputs.npz),
            "wait",
            labelling.every,
            labelling.frames,
        )
        self._embeddings = stream.embeddings
        targets = Targets(
            part / VIDEO if outputs.video else None,
            part / MASKS if outputs.masks else None,
            part / LINES if outputs.jsonl else None,
            part / ARRAYS if outputs.npz else None,
            outputs.npz_top,
            part / COCO if outputs.coco else None,
            part / CVAT if outputs.cvat else None,
            outputs.style,
            outputs.mask_format,
        )
        report = run(stream, targets, quiet=True)
        return report["frames"], report["missing"]

    # -- chunks ----------------------------------------------------------------------------------------------------

    def _chunk(self, job: Job, span: Span, segmenter: Segmenter, path: Path, part: Path) -> int:
        outputs, labelling = job.outputs, job.labelling
        known = job.source.packets.survey if job.source.packets is not None else None
        reader = VideoReader(path, known)
        stream = segmenter.stream(
            None,
            job.model.vocabulary,
            labelling.gap,
            labelling.distant or "farthest",
            self._embeddings,
            replace(labelling.stream_options(outputs.npz), smooth=False),
        )
        self._embeddings = stream.embeddings
        if self._primed_for != (job.source, labelling):
            self._primed, self._primed_for = b"", (job.source, labelling)
        self._prime(stream, reader, span)
        stream.index = span.start - span.overlap
        # Pictures of overlays are drawn by merge, from the masks.
        masks = outputs.masks or outputs.video
        form = outputs.mask_format if outputs.masks else "gray"
        targets = Targets(
            None,
            part / MASKS if masks else None,
            part / LINES if outputs.jsonl else None,
            part / ARRAYS if outputs.npz else None,
            outputs.npz_top,
            mask_format=form,
        )
        count = 0
        source = cast(Source, reader)  # its path and number of frames are never None
        with open_outputs(targets, source, stream.names, stream.stages) as (opened, _), Background() as writer:
            for result in labelled(stream, checked(reader, span), span, labelling.every):
                writer.put(_write, opened, result)
                count += 1
        return count

    def _prime(self, stream: SegmenterStream, reader: VideoReader, span: Span) -> None:
        """Give the stream the first and the last frame; chunks of one source share what they give."""
        if not stream.engine.can.distant:
            return
        if self._primed:
            stream.load(self._primed)
            return
        damage = Damage()
        first = next(iter(reader), None)
        if first is None or damage.errors or first.time != span.first_time:
            raise Untrusted("its first frame is not the one that its packets tell of")
        stream.set_first(first.rgb, first.time)
        if stream.policy == "farthest":
            last = reader.last_frame()
            stream.set_last(last.rgb, last.time)
        self._primed = stream.save()


def checked(reader: VideoReader, span: Span) -> Iterator[VideoFrame]:
    """The frames from ``start - overlap`` to ``stop``.

    Raises:
        Untrusted: the file gives others.
    """
    damage = Damage()
    origin = reader.origin or 0
    stamps = [stamp - origin for stamp in span.stamps]
    frames = reader.part(span.seek, span.skip, damage)
    number = 0
    try:
        for frame in frames:
            if frame.pts < stamps[0]:
                continue
            if damage.errors or damage.concealed:
                raise Untrusted(f"something before frame {span.start - span.overlap + number} does not decode")
            if frame.pts != stamps[number]:
                raise Untrusted(f"frame {span.start - span.overlap + number} is not where its packets say")
            yield frame
            number += 1
            if number == len(stamps):
                return
    except Damaged:
        raise Untrusted(f"frame {span.start - span.overlap + number} or one near it does not decode") from None
    finally:
        frames.close()  # type: ignore[attr-defined]
    raise Untrusted(f"it ends before frame {span.start - span.overlap + number}")


def labelled(stream: SegmenterStream, frames: Iterator[VideoFrame], span: Span, every: int = 1) -> Iterator[Result]:
    """Results of frames ``start`` to ``stop``; those before it only move the state."""
    with Prefetch(frames, AHEAD) as waiting:
        for number, frame in enumerate(waiting, span.start - span.overlap):
            if number < span.start:
                if number % every == 0:
                    stream.advance(frame.rgb, frame.time)
                else:
                    stream.index += 1
                continue
            label = stream.step if number % every == 0 else stream.hold
            result = label(frame.rgb, frame.time)
            yield replace(result, pts=frame.pts, name=frame.name)


def _write(outputs: list[Output], result: Result) -> None:
    for output in outputs:
        output.write(result)


@contextmanager
def a_worker(bundle: str | None = None) -> Iterator[Worker]:
    """A worker that leaves nothing behind."""
    worker = Worker(bundle)
    try:
        yield worker
    finally:
        worker.close()
