"""``--clip MODEL/TAG``: a published CLIP becomes a bundle without any training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ov2vss_export.commands.making import check_early, common_fields, make
from ov2vss_export.commands.mode import Mode, Options
from ov2vss_runtime.errors import OV2VSSError

if TYPE_CHECKING:
    from ov2vss_export.clip_writer import ClipRequest

log = logging.getLogger("ov2vss")
SIZE = "288x512"
WORDS = "person; animal; vehicle; building; plant; road; sky; water"
"""Words of a bundle for which none were given; others are given at run time."""
RECIPES = ("neighbour", "value", "calibrated")


def run(options: Options) -> None:
    """Export, print the gates and the size, and build plans if they were asked for."""
    check_early(options)
    from ov2vss_export.clip_writer import export_clip

    make(options, _request(options), export_clip)


def _request(options: Options) -> ClipRequest:
    from ov2vss.clip_source import ClipSource
    from ov2vss_export.clip_writer import ClipRequest, fitted_size
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size

    assert options.clip is not None
    model, slash, tag = options.clip.partition("/")
    if not model or (slash and not tag):
        raise OV2VSSError(f"{options.clip!r} is not MODEL/TAG", "write it like ViT-B-16/openai", usage=True)
    wanted = parse_size(options.size or SIZE)
    size = fitted_size(model, wanted)
    if size != tuple(wanted):
        log.warning("size %dx%d -> %dx%d (multiples of the model's patch)", *wanted, *size)
    recipe = options.dense or RECIPES[0]
    return ClipRequest(
        checkpoint=None,  # type: ignore[arg-type]  # there is none
        vocabulary=Vocabulary.parse(options.vocab if options.vocab is not None else WORDS),
        out=options.out or Path(f"{model}-{tag or 'weights'}-bundle"),
        size=size,
        decoder_parts=False,
        model=model,
        tag=tag,
        source=ClipSource(options.clip_weights or "", options.download),
        dense=recipe,
        temperature=options.temperature or 40.0,
        affinity=options.temporal == "affinity",
        synonyms=options.synonyms or "average",
        **common_fields(options),
    )


MODE = Mode(
    asked_by="--clip",
    asked=lambda options: options.clip is not None,
    takes=frozenset(Options.__dataclass_fields__)
    - {"ckpt", "verify_only", "backend", "device", "add_vocab", "bundle", "decoder_parts", "replace_license", "store"},
    run=run,
)
