"""The public face of the runtime, and the import paths of the release before."""

import subprocess
import sys
import warnings

import pytest

import ov2vss_runtime
from ov2vss_runtime import _old_paths


def test_every_public_name_can_be_imported_and_says_what_it_is() -> None:
    for name in ov2vss_runtime.__all__:
        assert getattr(ov2vss_runtime, name).__doc__, name


def test_importing_the_package_loads_no_engine_and_no_library() -> None:
    code = (
        "import sys, ov2vss_runtime\n"
        "print([m for m in ('numpy', 'cv2', 'av', 'onnxruntime', 'openvino', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("old", sorted(_old_paths.MODULES))
def test_old_module_paths_work_and_warn(old: str) -> None:
    code = (
        "import warnings, importlib\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    old = importlib.import_module('ov2vss_runtime.{old}')\n"
        f"new = importlib.import_module('ov2vss_runtime.{_old_paths.MODULES[old]}')\n"
        "assert old is new\n"
        "assert [w for w in caught if w.category is DeprecationWarning and 'next release' in str(w.message)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_names_of_modules_that_became_packages() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from ov2vss_runtime.bundle import Bundle, Manifest  # noqa: F401
        from ov2vss_runtime.outputs import Targets
        from ov2vss_runtime.stream import Result, StreamOptions
        from ov2vss_runtime.video import VideoFrame, VideoReader  # noqa: F401
    assert len([w for w in caught if w.category is DeprecationWarning]) >= 7
    assert Targets is ov2vss_runtime.Targets
    assert Result is ov2vss_runtime.Result
    assert StreamOptions is ov2vss_runtime.StreamOptions
    with pytest.raises(ImportError):
        from ov2vss_runtime.stream import Nothing  # noqa: F401
