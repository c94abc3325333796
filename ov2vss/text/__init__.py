"""Text encoders: words in, unit vectors in the vision-language space out."""

from ov2vss.text.encoders import build_text_encoder
from ov2vss.text.text_encoder import TextEncoder

__all__ = ["TextEncoder", "build_text_encoder"]
