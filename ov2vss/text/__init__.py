"""Text encoders: words in, unit vectors in the vision-language space out."""

from ov2vss.text.encoders import TextEncoder, build_text_encoder

__all__ = ["TextEncoder", "build_text_encoder"]
