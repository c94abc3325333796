"""``clip:MODEL/TAG[@HxW]``: bundles that are made from a published CLIP when they are first asked for, and kept.

Making one needs torch: ``ov2vss-export`` does it as a program of its own. After that the bundle is a folder like any
other in the user's cache. Words are not part of its name: any words can be given to it.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from ov2vss_runtime.errors import BundleError

log = logging.getLogger("ov2vss.runtime")
PREFIX = "clip:"
SIZES = ((288, 512), (336, 448), (384, 384), (448, 336), (512, 288))
"""Frame sizes (H, W) of about the same area; the one nearest to the video's aspect is taken."""
WINDOW = "224x224"
"""Size of the windows of ``--tiles``, where the bundle's name says none: what CLIP was trained with."""
RECIPES = ("neighbour", "value", "calibrated")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ClipOptions:
    """How such a bundle is made.

    Attributes:
        weights: a file of weights, or ``random``; empty for the local hub cache.
        download: allow the weights to be fetched.
        dense: how features of places are taken from CLIP.
        aspect: width over height of the video, where no size is named.
    """

    weights: str = ""
    download: bool = False
    dense: str = RECIPES[0]
    aspect: float = 16 / 9


def is_clip(bundle: object) -> bool:
    """Whether a bundle is named after a CLIP."""
    return isinstance(bundle, str) and bundle.startswith(PREFIX)


def of_windows(bundle: str) -> str:
    """The name with the size of windows, where it has no size yet."""
    return bundle if "@" in bundle else f"{bundle}@{WINDOW}"


def nearest_size(aspect: float) -> tuple[int, int]:
    """The size of :data:`SIZES` whose aspect is nearest, in ratio."""
    return min(SIZES, key=lambda size: max(aspect * size[0] / size[1], size[1] / size[0] / aspect))


def find_clip_bundle(bundle: str, options: ClipOptions | None = None) -> Path:
    """Folder of the bundle; made now if it is not in the cache.

    Raises:
        BundleError: a name that is none, the export extra is missing, or the export failed.
    """
    options = options or ClipOptions()
    name, _, wanted = bundle.removeprefix(PREFIX).partition("@")
    model, _, tag = name.partition("/")
    if not model or not tag or "/" in tag:
        raise BundleError(f"{bundle!r} is not clip:MODEL/TAG", "write it like clip:ViT-B-16/openai, or with @288x512")
    if options.dense not in RECIPES:
        raise BundleError(f"there is no dense recipe {options.dense!r}", f"choose one of {', '.join(RECIPES)}")
    if wanted:
        height, _, width = wanted.partition("x")
        if not (height.isdigit() and width.isdigit() and 0 < int(height) <= 4096 and 0 < int(width) <= 4096):
            raise BundleError(f"size {wanted!r} is not HEIGHTxWIDTH", "write it like @288x512")
        size = (int(height), int(width))
    else:
        size = nearest_size(options.aspect)
    if options.weights not in ("", "random") and not Path(options.weights).exists():
        raise BundleError(f"CLIP weights {options.weights} do not exist", "check --clip-weights")
    root = user_cache_path("ov2vss", appauthor=False) / "clip"
    key = sha256(repr((version("ov2vss"), model, tag, size, options.dense, _identity(options.weights))).encode())
    plain = "".join(c if c.isalnum() or c in "-._" else "-" for c in f"{model}-{tag}")
    folder = root / f"{plain}-{size[0]}x{size[1]}-{options.dense}-{key.hexdigest()[:12]}"
    if not (folder / MANIFEST).is_file():
        root.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not (folder / MANIFEST).is_file():
                _export(f"{model}/{tag}", size, options, folder)
    return folder


def _identity(weights: str) -> list[object]:
    """What tells one file of weights from another without reading it: its place, length and time."""
    if weights in ("", "random"):
        return [weights]
    path = Path(weights).resolve()
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _export(name: str, size: tuple[int, int], options: ClipOptions, folder: Path) -> None:
    """Run ``ov2vss-export``; it puts the folder there in one piece."""
    program = Path(sys.executable).with_name("ov2vss-export" + (".exe" if os.name == "nt" else ""))
    found = str(program) if program.is_file() else shutil.which("ov2vss-export")
    missing = [module for module in ("torch", "open_clip", "onnx") if find_spec(module) is None]
    if missing or found is None:
        raise BundleError(
            f"a bundle of CLIP {name} needs {missing[0] if missing else 'ov2vss-export'} once, which is not installed",
            "run: pip install 'ov2vss[export]', or copy a finished bundle here and name its folder",
        )
    command = [found, "--clip", name, "--out", str(folder), "--size", f"{size[0]}x{size[1]}"]
    command += ["--dense", options.dense, "--rollout", "45"]
    command += ["--clip-weights", options.weights] if options.weights else []
    command += ["--download"] if options.download else []
    log.warning("CLIP %s at %dx%d: making the bundle once (minutes), it is kept in %s", name, *size, folder)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        reason = lines[-1].removeprefix("ov2vss-export: ").removeprefix("error: ")
        raise BundleError(f"CLIP {name} could not be made a bundle: {reason}", "see ov2vss-export --clip")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
