"""Where ``ov2vss-train`` and ``ov2vss-eval`` begin (see :mod:`ov2vss_runtime.start`)."""

from ov2vss_runtime.start import start


def train() -> None:
    """``ov2vss-train``."""
    start("ov2vss.train.cli")


def evaluate() -> None:
    """``ov2vss-eval``."""
    start("ov2vss.evaluate.cli")
