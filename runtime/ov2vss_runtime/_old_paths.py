"""Import paths of version 0.1, which work one release longer and warn."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

MODULES = {
    "backends": "engines.backends",
    "bundle_engine": "engines.bundle_engine",
    "cuda_memory": "engines.cuda",
    "engine": "engines.engine",
    "openvino_engine": "engines.openvino",
    "ort_engine": "engines.onnxruntime",
    "tensorrt_engine": "engines.tensorrt",
    "tensorrt_plans": "engines.plans",
    "images": "video.images",
    "live": "video.live",
    "sources": "video.open_source",
    "video_writer": "video.writer",
    "masks": "outputs.masks",
    "overlay": "outputs.overlay",
    "cuts": "stream.cuts",
    "labelmap": "stream.label_map",
    "pipeline": "stream.pipeline",
    "preprocess": "stream.preprocess",
    "pruning": "stream.pruning",
    "runner": "stream.runner",
    "segmenter": "stream.segmenter",
    "text": "bundle.text",
    "vocabulary": "bundle.vocabulary",
    "files": "atomic_files",
    "threads": "processors",
}
"""Old name of a module in this package -> where it is now."""

PACKAGE = __package__


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != PACKAGE or name not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        home = f"{PACKAGE}.{MODULES[spec.name.rpartition('.')[2]]}"
        _warn(spec.name, home)
        return importlib.import_module(home)

    def exec_module(self, module: ModuleType) -> None:
        """The module has been run under its own name."""


def install() -> None:
    """Make ``import`` find the old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def names_of(package: str, *modules: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package that used to be a module: its old names, looked up in ``modules``."""

    def lookup(name: str) -> Any:
        if not name.startswith("__"):
            for module in modules:
                home = importlib.import_module(f"{package}.{module}")
                if name in vars(home):
                    _warn(f"{package}.{name}", f"{package}.{module}.{name}")
                    return getattr(home, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return lookup


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is {new} now; the old path goes in the next release", DeprecationWarning, stacklevel=3)
