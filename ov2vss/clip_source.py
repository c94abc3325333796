"""Where CLIP's weights come from: apart from :mod:`ov2vss.clip`, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipSource:
    """Where weights come from.

    Attributes:
        weights: a file (safetensors, or a state dict of torch; open_clip's, OpenAI's or Hugging Face's names), a folder
            of the hub that holds one, ``random``, or empty for the local hub cache.
        download: allow open_clip to fetch the tag's weights.
    """

    weights: str = ""
    download: bool = False
