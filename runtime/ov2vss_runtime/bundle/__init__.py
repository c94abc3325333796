"""The bundle: its manifest, its words, and whether it still is what was exported."""

from ov2vss_runtime._old_paths import names_of

__getattr__ = names_of(__name__, "bundle")
