"""What is made of a stream's results."""

from ov2vss_runtime._old_paths import names_of

__getattr__ = names_of(__name__, "targets")
