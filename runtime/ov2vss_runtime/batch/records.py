"""What stands in ``.batch/plan.json`` and ``.batch/jobs.jsonl``: all that a worker needs to know, and no more."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.outputs.overlay import OverlayStyle
from ov2vss_runtime.stream.distant import DistantPolicy
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.tiles import parse_tiles
from ov2vss_runtime.video.decode import Survey

FORMAT = 1


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outputs(Record):
    """What is written of every source; the options of ``ov2vss-run``."""

    video: bool = True
    masks: bool = False
    jsonl: bool = False
    npz: bool = False
    coco: bool = False
    cvat: bool = False
    mask_format: Literal["palette", "gray"] = "palette"
    npz_top: int = 0
    alpha: float = 0.5
    outlines: bool = False
    legend: bool = True
    side_by_side: bool = False

    @property
    def style(self) -> OverlayStyle:
        return OverlayStyle(self.alpha, self.outlines, self.legend, self.side_by_side)


class Labelling(Record):
    """How frames are labelled; the options of ``ov2vss-run``."""

    gap: int
    distant: DistantPolicy | None = None
    every: int = 1
    frames: int | None = None
    confidence: bool = False
    unknown_below: float = 0.0
    background: tuple[str, ...] = ()
    synonyms: Literal["average", "max"] | None = None
    drop_absent: float = 0.0
    top_classes: int = 0
    reset_on_cut: bool = False
    smooth: bool | None = None
    keyframes: int | Literal["auto"] = 1
    tiles: str | None = None

    def stream_options(self, logits: bool) -> StreamOptions:
        return StreamOptions(
            self.confidence,
            logits,
            self.unknown_below,
            self.reset_on_cut,
            self.top_classes,
            smooth=self.smooth,
            keyframes=self.keyframes,
            synonyms=self.synonyms,
            background=self.background,
            drop_absent=self.drop_absent,
            tiles=parse_tiles(self.tiles) if self.tiles is not None else None,
        )


class Model(Record):
    """Which model computes, and with what: a worker that has another one refuses the job.

    Attributes:
        bundle: a folder or the name of a built-in bundle.
        sha256: of its manifest, which holds the hashes of all its files.
        engine: of :func:`ov2vss_runtime.segmenter.Segmenter.load`, as its ``backend``.
        words: the classes, each with its synonyms.
    """

    bundle: str
    sha256: str
    engine: str
    precision: str
    threads: int
    device: int = 0
    words: tuple[tuple[str, ...], ...]

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.words)


class Identity(Record):
    """What tells a file from another version of it.

    Attributes:
        size: bytes.
        mtime_ns: of a local file, in nanoseconds; else None.
        etag: what a store calls the version, where it does.
        head: sha256 of the first 64 KiB.
    """

    size: int
    mtime_ns: int | None = None
    etag: str | None = None
    head: str


class Packets(Record):
    """A :class:`ov2vss_runtime.video.decode.Survey` as JSON: chunks need not read the whole file again."""

    packets: int
    absent: int
    first: int | None
    last: int
    last_key: int | None
    last_key_number: int
    jumps: int
    sound: dict[int, str]

    @classmethod
    def of(cls, survey: Survey) -> Packets:
        sound = {index: str(time) for index, time in survey.sound.items()}
        return cls(**{**vars(survey), "sound": sound})

    @property
    def survey(self) -> Survey:
        sound = {index: Fraction(time) for index, time in self.sound.items()}
        return Survey(**{**self.model_dump(), "sound": sound})


class SourceFile(Record):
    """One source of the archive.

    Attributes:
        name: of its outputs, without a suffix; may have folders.
        location: absolute path, or the address in a store.
        identity: None for folders of images.
        images: a folder or pattern of images, or one image.
        rate: frames a second of images.
        packets: None where the source is one job.
    """

    name: str
    location: str
    identity: Identity | None = None
    images: bool = False
    rate: str = "25"
    packets: Packets | None = None


class Span(Record):
    """A chunk of a video.

    Attributes:
        start: number of the first frame that is labelled, and ``stop`` of the one after the last.
        overlap: frames before ``start`` that warm the state.
        seek: timestamp to seek to, in ticks of the file, and ``skip`` packets of the video to leave out from there.
        first: timestamp of frame ``start - overlap``, in ticks of the file.
        steps: the distances from each of the frames to the next one, as ``(distance, how often)``.
        first_time, last_time: timestamps of the video's first and last frame, in seconds: the distant frame is one of
            them.
    """

    start: int
    stop: int
    overlap: int
    seek: int
    skip: int
    first: int
    steps: tuple[tuple[int, int], ...]
    first_time: float
    last_time: float

    @property
    def stamps(self) -> list[int]:
        """Timestamps of all frames from ``start - overlap`` to ``stop``, in ticks of the file."""
        stamps = [self.first]
        for distance, count in self.steps:
            for _ in range(count):
                stamps.append(stamps[-1] + distance)
        return stamps


def run_lengths(stamps: list[int]) -> tuple[tuple[int, int], ...]:
    """Inverse of :attr:`Span.stamps`, without the first.

    >>> run_lengths([0, 2, 4, 5])
    ((2, 2), (1, 1))
    """
    runs: list[list[int]] = []
    for before, after in pairwise(stamps):
        if runs and runs[-1][0] == after - before:
            runs[-1][1] += 1
        else:
            runs.append([after - before, 1])
    return tuple((distance, count) for distance, count in runs)


class Job(Record):
    """One piece of work. It says all that its result depends on.

    Attributes:
        id: of this piece, ``<number of the source>-<number of the chunk>``.
        span: the chunk; None for the whole source.
        why_whole: why a source that could have been cut is in one piece; empty where nobody asked for more.
        frames: how many are to come, as far as the packets tell.
    """

    id: str
    source: SourceFile
    model: Model
    labelling: Labelling
    outputs: Outputs
    span: Span | None = None
    why_whole: str = ""
    frames: int | None = None

    @property
    def whole(self) -> Job:
        """The same source in one piece: what is done where a chunk turns out not to be what its plan says."""
        number = self.id.split("-")[0]
        return self.model_copy(update={"id": f"{number}-whole", "span": None, "frames": None})


class Done(Record):
    """``done.json`` of a finished part: written last.

    Attributes:
        job: its id.
        frames: that were labelled.
        seconds: that it took, and ``user_seconds`` of processor time.
        untrusted: why this chunk has no labels and its source has to be done in one piece; empty for a good one.
        missing: frames of a whole source that did not decode.
    """

    job: str
    frames: int
    seconds: float
    user_seconds: float
    untrusted: str = ""
    missing: int = 0


def load(kind: type[Any], text: str) -> Any:
    """A record from its JSON."""
    return kind.model_validate_json(text)
