"""Where frames come from, and the video that is written."""

from ov2vss_runtime._old_paths import names_of

__getattr__ = names_of(__name__, "file", "source")
