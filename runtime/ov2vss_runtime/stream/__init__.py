"""Frames in order to labels: state, words, label maps, and the loop around them."""

from ov2vss_runtime._old_paths import names_of

__getattr__ = names_of(__name__, "stream")
