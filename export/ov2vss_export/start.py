"""Where ``ov2vss-export`` begins (see :mod:`ov2vss_runtime.start`)."""

from ov2vss_runtime.start import start


def export() -> None:
    """``ov2vss-export``."""
    start("ov2vss_export.cli")
