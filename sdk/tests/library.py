"""libov2vss through ctypes: what a C program sees, for tests that compare it with the Python runtime."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("OV2VSS_SDK_BUILD", ROOT / "build/sdk")) / "sdk"
BUNDLE = ROOT / "runtime/ov2vss_runtime/bundles/street-lite"
MOTION = ctypes.CFUNCTYPE(
    c_int32, c_void_p, c_void_p, c_int32, c_int32, c_int32, c_int32, POINTER(c_float), POINTER(c_float), c_void_p
)


class Sized(ctypes.Structure):
    """A struct whose first field is its own size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(ctypes.sizeof(type(self)), **fields)


class EngineOptions(Sized):
    _fields_ = [
        ("struct_size", c_uint32), ("threads", c_int32), ("backend", c_char_p), ("precision", c_char_p),
        ("modules", c_char_p), ("runtime", c_char_p), ("cache", c_char_p), ("device", c_int32), ("reserved", c_int32),
    ]  # fmt: skip


class VocabularyOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("synonyms", c_int32), ("background", c_char_p)]


class StreamOptions(Sized):
    _fields_ = [
        ("struct_size", c_uint32), ("gap", c_int32), ("distant", c_int32), ("confidence", c_int32),
        ("unknown_below", c_float), ("reset_on_cut", c_int32), ("top_classes", c_int32), ("drop_absent", c_float),
        ("seed", c_uint64), ("smooth", c_int32), ("keyframes", c_int32), ("motion", MOTION), ("motion_user", c_void_p),
        ("threads", c_int32), ("reserved", c_int32),
    ]  # fmt: skip


class Image(Sized):
    _fields_ = [
        ("struct_size", c_uint32), ("format", c_int32), ("width", c_int32), ("height", c_int32),
        ("planes", c_void_p * 2), ("strides", ctypes.c_ssize_t * 2), ("matrix", c_int32), ("reserved", c_int32),
    ]  # fmt: skip


class Result(Sized):
    _fields_ = [
        ("struct_size", c_uint32), ("label_bytes", c_int32), ("labels", c_void_p), ("label_stride", ctypes.c_ssize_t),
        ("confidence", c_void_p), ("confidence_stride", ctypes.c_ssize_t), ("time", c_double), ("index", c_int64),
        ("age", c_int32), ("held", c_int32), ("propagated", c_int32), ("cut", c_int32), ("logits", POINTER(c_float)),
        ("classes", POINTER(c_int32)), ("rows", c_int32), ("unknown", c_int32),
    ]  # fmt: skip


class Labelled(NamedTuple):
    labels: npt.NDArray[np.unsignedinteger]
    confidence: npt.NDArray[np.float32] | None
    result: Result


class CError(Exception):
    """What ov2vss_last_error() says, and the status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_char_p, []),
    "last_error": (c_char_p, []),
    "engine_open": (c_int32, [c_char_p, POINTER(EngineOptions), POINTER(c_void_p)]),
    "engine_release": (None, [c_void_p]),
    "vocabulary_from_words": (c_int32, [c_void_p, c_char_p, POINTER(VocabularyOptions), POINTER(c_void_p)]),
    "vocabulary_from_file": (c_int32, [c_void_p, c_char_p, POINTER(VocabularyOptions), POINTER(c_void_p)]),
    "vocabulary_from_embeddings": (
        c_int32, [c_void_p, POINTER(c_char_p), c_size_t, c_void_p, c_size_t, POINTER(c_void_p)],
    ),
    "vocabulary_release": (None, [c_void_p]),
    "vocabulary_count": (c_size_t, [c_void_p]),
    "vocabulary_name": (c_char_p, [c_void_p, c_size_t]),
    "vocabulary_embeddings": (POINTER(c_float), [c_void_p, POINTER(c_size_t), POINTER(c_size_t)]),
    "vocabulary_label_bytes": (c_int32, [c_void_p]),
    "stream_create": (c_int32, [c_void_p, c_void_p, POINTER(StreamOptions), POINTER(c_void_p)]),
    "stream_destroy": (None, [c_void_p]),
    "stream_set_words": (c_int32, [c_void_p, c_void_p]),
    "stream_set_first": (c_int32, [c_void_p, POINTER(Image), c_double]),
    "stream_set_last": (c_int32, [c_void_p, POINTER(Image), c_double]),
    "stream_step": (c_int32, [c_void_p, POINTER(Image), c_double, POINTER(Result)]),
    "stream_hold": (c_int32, [c_void_p, c_double, POINTER(Result)]),
    "stream_advance": (c_int32, [c_void_p, POINTER(Image), c_double]),
    "stream_reset": (c_int32, [c_void_p]),
    "stream_restart": (c_int32, [c_void_p]),
    "stream_save": (c_int32, [c_void_p, POINTER(c_void_p), POINTER(c_size_t)]),
    "stream_load": (c_int32, [c_void_p, c_char_p, c_size_t]),
    "free": (None, [c_void_p]),
    "label_map": (
        c_int32,
        [c_void_p, c_int32, c_int32, c_int32, c_void_p, c_int32, c_int32, c_int32, c_void_p, c_int32],
    ),
}  # fmt: skip


class Library:
    """The shared library; every function of it, with failures as CError."""

    def __init__(self, path: Path = BUILD / "libov2vss.so") -> None:
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self._library, f"ov2vss_{name}")
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"ov2vss_{name}")

    def check(self, status: int) -> None:
        if status:
            raise CError(status, self.last_error().decode())


def image_of(frame: npt.NDArray[np.uint8], form: int = 0) -> Image:
    """RGB (or BGR) ``[h, w, 3]`` whose rows may have space between them."""
    assert frame.strides[1:] == (3, 1)
    return Image(
        format=form,
        width=frame.shape[1],
        height=frame.shape[0],
        planes=(c_void_p * 2)(frame.ctypes.data, None),
        strides=(ctypes.c_ssize_t * 2)(frame.strides[0], 0),
    )


class CEngine:
    """An engine of libov2vss, and what is made with it."""

    def __init__(self, bundle: Path = BUNDLE, **options: Any) -> None:
        self.library = Library()
        self.handle = c_void_p()
        given = {k: v.encode() if isinstance(v, str) else v for k, v in options.items()}
        self.library.check(
            self.library.engine_open(str(bundle).encode(), byref(EngineOptions(**given)), byref(self.handle))
        )

    def close(self) -> None:
        self.library.engine_release(self.handle)

    def words(self, text: str | None = None, synonyms: int = 0, background: str | None = None) -> c_void_p:
        found = c_void_p()
        options = VocabularyOptions(synonyms=synonyms, background=background.encode() if background else None)
        words = None if text is None else text.encode()
        self.library.check(self.library.vocabulary_from_words(self.handle, words, byref(options), byref(found)))
        return found

    def embeddings(self, words: c_void_p) -> npt.NDArray[np.float32]:
        rows, width = c_size_t(), c_size_t()
        values = self.library.vocabulary_embeddings(words, byref(rows), byref(width))
        return np.ctypeslib.as_array(values, (rows.value, width.value)).copy()

    def stream(self, words: c_void_p | None = None, **options: Any) -> CStream:
        return CStream(self, words, StreamOptions(**options))


class CStream:
    def __init__(self, engine: CEngine, words: c_void_p | None, options: StreamOptions) -> None:
        self.engine, self.library, self.options = engine, engine.library, options
        self.words = words if words is not None else engine.words()
        self.handle = c_void_p()
        check = self.library.check
        check(self.library.stream_create(engine.handle, self.words, byref(options), byref(self.handle)))

    def close(self) -> None:
        self.library.stream_destroy(self.handle)

    def set_words(self, words: c_void_p) -> None:
        self.library.check(self.library.stream_set_words(self.handle, words))
        self.words = words

    def _result(self, size: Sequence[int], confidence: bool) -> Labelled:
        kind = np.uint8 if self.library.vocabulary_label_bytes(self.words) == 1 else np.uint16
        labels = np.empty(tuple(size), kind)
        sure = np.empty(tuple(size), np.float32) if confidence else None
        result = Result(labels=labels.ctypes.data, confidence=sure.ctypes.data if sure is not None else None)
        return Labelled(labels, sure, result)

    def step(self, frame: npt.NDArray[np.uint8], time: float = math.nan) -> Labelled:
        found = self._result(frame.shape[:2], bool(self.options.confidence))
        self.library.check(self.library.stream_step(self.handle, byref(image_of(frame)), time, byref(found.result)))
        return found

    def hold(self, size: Sequence[int], time: float = math.nan) -> Labelled:
        found = self._result(size, False)
        self.library.check(self.library.stream_hold(self.handle, time, byref(found.result)))
        return found

    def advance(self, frame: npt.NDArray[np.uint8], time: float = math.nan) -> None:
        self.library.check(self.library.stream_advance(self.handle, byref(image_of(frame)), time))

    def set_first(self, frame: npt.NDArray[np.uint8], time: float = math.nan) -> None:
        self.library.check(self.library.stream_set_first(self.handle, byref(image_of(frame)), time))

    def set_last(self, frame: npt.NDArray[np.uint8], time: float = math.nan) -> None:
        self.library.check(self.library.stream_set_last(self.handle, byref(image_of(frame)), time))

    def reset(self) -> None:
        self.library.check(self.library.stream_reset(self.handle))

    def restart(self) -> None:
        self.library.check(self.library.stream_restart(self.handle))

    def save(self) -> bytes:
        data, size = c_void_p(), c_size_t()
        self.library.check(self.library.stream_save(self.handle, byref(data), byref(size)))
        saved = ctypes.string_at(data, size.value)
        self.library.free(data)
        return saved

    def load(self, data: bytes) -> None:
        self.library.check(self.library.stream_load(self.handle, data, len(data)))
