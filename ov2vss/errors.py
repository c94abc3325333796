"""The one error that users of the training package see: what is wrong, and what to do."""

from ov2vss_runtime.errors import OV2VSSError

__all__ = ["OV2VSSError"]
