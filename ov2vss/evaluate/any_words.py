"""Any words on labelled data: background, doubt, synonyms and windows, as the published figures of CLIP are made."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from ov2vss.data.source import VideoSet
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.evaluate import Protocol
from ov2vss_runtime.bundle.bundle import Manifest
from ov2vss_runtime.bundle.clip_bundles import RECIPES, ClipOptions, of_windows
from ov2vss_runtime.bundle.text import background_words
from ov2vss_runtime.stream.keyframes import KeyFrames
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.tiles import parse_tiles

log = logging.getLogger("ov2vss")


def clip_for(
    bundle: str, videos: VideoSet, weights: str | None, download: bool, dense: str | None, windows: bool
) -> tuple[str, ClipOptions]:
    """Name of a ``clip:`` bundle, and how it is made: for windows, or for the aspect of the first frame."""
    height, width = videos.frame(0, 0).shape[:2]
    options = ClipOptions(weights or "", download, dense or RECIPES[0], width / height)
    return of_windows(bundle) if windows else bundle, options


@dataclass(frozen=True)
class WordOptions:
    """What was asked for at the command line; None where nothing was.

    Attributes:
        background: a list of words, ``stuff`` or ``none``.
        unknown_below: a probability or ``auto``.
        synonyms: ``average`` or ``max``.
        tiles: ``SHORT:STRIDE``.
    """

    background: str | None = None
    unknown_below: str | None = None
    synonyms: Literal["average", "max"] | None = None
    tiles: str | None = None

    def stream_options(
        self, protocol: Protocol, manifest: Manifest, smooth: bool = False, keyframes: KeyFrames = 1
    ) -> StreamOptions:
        """Options of a stream. Where unknown pixels are a class of the data set, the words of the list ``stuff`` take
        part and the bundle's own threshold counts, unless something else was asked for."""
        needed = protocol.background is not None
        background = self.background or ("stuff" if needed else "none")
        least = self.unknown_below or ("auto" if needed else "0")
        if needed and self.background is None:
            log.info("pixels of no class are a class here: words of the list 'stuff' stand for it (--background)")
        words = () if background == "none" else background_words(background)
        return StreamOptions(
            unknown_below=manifest.unknown_below if least == "auto" else _share(least),
            smooth=smooth,
            keyframes=keyframes,
            synonyms=self.synonyms,
            background=words,
            tiles=parse_tiles(self.tiles) if self.tiles is not None else None,
        )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise OV2VSSError(
            f"--unknown-below {text!r} is no probability", "write a number from 0 to 1, or auto", usage=True
        )
    return value
