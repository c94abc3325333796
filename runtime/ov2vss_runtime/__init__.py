"""Runtime of the OV2VSS toolkit: a bundle and a video in, labelled frames out. Never imports torch.

The names of ``__all__`` are the public interface; they are imported when they are first used, so that importing the
package loads neither an engine nor OpenCV. Every other name may change from one release to the next.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ov2vss_runtime import _old_paths

if TYPE_CHECKING:
    from ov2vss_runtime.bundle.clip_bundles import ClipOptions
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.outputs.targets import Targets
    from ov2vss_runtime.stream.runner import run
    from ov2vss_runtime.stream.segmenter import Segmenter
    from ov2vss_runtime.stream.stream import Result, Stream, StreamOptions

__version__ = version("ov2vss")
__all__ = ["ClipOptions", "Result", "Segmenter", "Stream", "StreamOptions", "Targets", "Vocabulary", "run"]

_HOME = {
    "ClipOptions": "bundle.clip_bundles",
    "Result": "stream.stream",
    "Segmenter": "stream.segmenter",
    "Stream": "stream.stream",
    "StreamOptions": "stream.stream",
    "Targets": "outputs.targets",
    "Vocabulary": "bundle.vocabulary",
    "run": "stream.runner",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


_old_paths.install()
