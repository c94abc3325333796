"""The C interface: what it shows, older callers, wrong calls; installed, moved, and built against; the program."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ov2vss_runtime import Segmenter
from ov2vss_runtime.outputs.masks import MaskWriter

from .conftest import Frames
from .library import BUILD, BUNDLE, ROOT, CEngine, CError, EngineOptions, Image, Result, StreamOptions, image_of


def run(*command: Any, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False, **more)


def cli(*options: Any, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run(BUILD / "ov2vss-cli", "--bundle", BUNDLE, "--threads", 1, *options, input=data)


def test_nothing_but_the_interface_is_shown() -> None:
    table = run("nm", "-D", "--defined-only", BUILD / "libov2vss.so").stdout.decode()
    names = {line.split()[-1] for line in table.splitlines() if " A " not in line}
    header = (ROOT / "sdk/include/ov2vss/ov2vss.h").read_text()
    declared = set(re.findall(r"^OV2VSS_API [\w* ]+?\b\*?(ov2vss_\w+)\(", header, re.M))
    assert names == {f"{name}@@OV2VSS_1" for name in declared}
    assert len(declared) == 31


def test_the_library_needs_libc_libstdcpp_and_libutf8proc_alone() -> None:
    needed = re.findall(r"NEEDED.*\[(\w+)", run("readelf", "-d", BUILD / "libov2vss.so").stdout.decode())
    assert set(needed) <= {"libc", "libm", "libstdc", "libgcc_s", "libutf8proc", "ld"}


def test_the_version_is_that_of_the_package(engine: CEngine) -> None:
    assert engine.library.version().decode() == re.search(r'version = "(.*)"', (ROOT / "pyproject.toml").read_text())[1]


def test_callers_of_older_and_newer_headers(engine: CEngine, frames: Frames) -> None:
    library, frame = engine.library, frames[0]
    want = engine.stream().step(frame).labels
    # Options that ended after `gap`, a result that ended after its labels.
    old = StreamOptions(gap=3, top_classes=99)
    old.struct_size = StreamOptions.distant.offset
    old.distant = 77  # what lies behind the struct does not count
    stream = c_void_p()
    library.check(library.stream_create(engine.handle, None, byref(old), byref(stream)))
    labels = np.empty(frame.shape[:2], np.uint8)
    short = Result(labels=labels.ctypes.data, time=5.0)
    short.struct_size = Result.label_stride.offset
    image = image_of(frame)
    library.check(library.stream_step(stream, byref(image), 0.0, byref(short)))
    assert np.array_equal(want, labels)
    assert (short.time, short.struct_size) == (5.0, Result.label_stride.offset)
    library.stream_destroy(stream)

    class Newer(ctypes.Structure):
        _fields_ = [("old", StreamOptions), ("more", ctypes.c_int32 * 2)]

    newer = Newer(StreamOptions())
    newer.old.struct_size = ctypes.sizeof(Newer)
    options = ctypes.cast(byref(newer), ctypes.POINTER(StreamOptions))
    library.check(library.stream_create(engine.handle, None, options, byref(stream)))
    library.stream_destroy(stream)
    newer.more[0] = 1
    with pytest.raises(CError, match="does not know"):
        library.check(library.stream_create(engine.handle, None, options, byref(stream)))


@pytest.mark.parametrize(
    ("options", "status", "part"),
    [
        ({"backend": "tensorflow"}, 1, "tensorflow"),
        ({"precision": "fp16"}, 2, "fp16"),
        ({"modules": "/nowhere"}, 4, "libov2vss_openvino.so"),
        ({"threads": -1}, 1, "threads=-1"),
        ({"backend": "openvino:cuda"}, 4, "cuda"),
    ],
)
def test_engines_that_cannot_be(options: dict[str, Any], status: int, part: str) -> None:
    with pytest.raises(CError, match=part) as caught:
        CEngine(**options)
    assert caught.value.status == status


def test_damaged_bundles(tmp_path: Path) -> None:
    with pytest.raises(CError, match="not a folder"):
        CEngine(tmp_path / "none")
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    name = json.loads((bundle / "manifest.json").read_text())["variants"]["fp32"]["graphs"]["backbone"]["file"]
    content = bytearray((bundle / name).read_bytes())
    content[1000] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(CError, match="sha256 differs") as caught:
        CEngine(bundle)
    assert caught.value.status == 2
    (bundle / name).unlink()
    (bundle / name).symlink_to(BUNDLE / name)
    with pytest.raises(CError, match="is missing"):
        CEngine(bundle)


def test_weights_outside_of_a_graph_are_refused(tmp_path: Path) -> None:
    """Whatever the order of fields: here the name of the file comes before the key that says what it is."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes([number << 3 | 2, len(content)]) + content

    entry = field(2, b"weights.bin") + field(1, b"location")
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    graph = manifest["variants"]["fp32"]["graphs"]["backbone"]
    content = (bundle / graph["file"]).read_bytes() + field(7, field(5, field(8, b"more") + field(13, entry)))
    (bundle / graph["file"]).write_bytes(content)
    graph["sha256"] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CError, match="keeps weights in other files") as caught:
        CEngine(bundle)
    assert caught.value.status == 2


def test_wrong_calls_say_what_to_do(engine: CEngine, frames: Frames) -> None:
    library, stream = engine.library, engine.stream()
    image, result = image_of(frames[0]), Result()
    for broken, part in (
        ({"width": 0}, "0 x 360"),
        ({"format": 9}, "format 9"),
        ({"strides": (ctypes.c_ssize_t * 2)(5, 0)}, "stride 5"),
        ({"planes": (c_void_p * 2)()}, "plane 0"),
        ({"struct_size": 0}, "struct_size"),
        ({"format": 2, "width": 639}, "NV12|plane 1"),
    ):
        wrong = Image()
        ctypes.memmove(byref(wrong), byref(image), ctypes.sizeof(Image))
        for name, value in broken.items():
            setattr(wrong, name, value)
        with pytest.raises(CError, match=part) as caught:
            library.check(library.stream_step(stream.handle, byref(wrong), 0.0, byref(result)))
        assert caught.value.status == 1
    with pytest.raises(CError, match="stream is null"):
        library.check(library.stream_step(None, byref(image), 0.0, byref(result)))
    sure = np.empty((360, 640), np.float32)
    wanting = Result(confidence=sure.ctypes.data)
    with pytest.raises(CError, match="confidence"):
        library.check(library.stream_step(stream.handle, byref(image), 0.0, byref(wanting)))
    for options in ({"gap": -1}, {"distant": 3}, {"unknown_below": 2.0}, {"smooth": 1}, {"keyframes": 3}):
        with pytest.raises(CError, match=next(iter(options))):
            engine.stream(**options)
    with pytest.raises(CError, match="repeats"):
        engine.words("road; Road")
    stream.close()


def test_key_frames_and_smoothing_along_given_motion(engine: CEngine, frames: Frames) -> None:
    from ov2vss_runtime.stream.flow import Motion
    from ov2vss_runtime.stream.propagation import Propagator

    from .library import MOTION

    seen = []

    @MOTION
    def motion(now: int, before: int, h: int, w: int, cells_h: int, cells_w: int, flow: Any, trust: Any, _: Any) -> int:
        seen.append((h, w, cells_h, cells_w))
        np.ctypeslib.as_array(flow, (cells_h, cells_w, 2))[:] = (0.5, -0.25)
        np.ctypeslib.as_array(trust, (cells_h, cells_w))[:] = 0.75
        return 0

    plain, smooth = engine.stream(), engine.stream(smooth=1, motion=motion)
    wanted = Propagator()
    for number, frame in enumerate(frames[:3]):
        first = plain.step(frame)
        logits = np.ctypeslib.as_array(first.result.logits, (11, 44, 80)).copy()
        if number:  # the same motion, given to the Python runtime's own rule
            wanted.motion = Motion(np.full((44, 80, 2), (0.5, -0.25), np.float32), np.full((44, 80), 0.75, np.float32))
        _, labels = wanted.blend(logits, "words", frame.shape[:2])
        assert np.array_equal(labels, smooth.step(frame).labels)
    assert seen == [(352, 640, 44, 80)] * 2
    keyed = engine.stream(keyframes=3, motion=motion)
    marks = [keyed.step(frame).result for frame in frames[:5]]
    assert [mark.propagated for mark in marks] == [0, 1, 1, 0, 1]
    assert [mark.age for mark in marks] == [0, 1, 2, 0, 1]
    for stream in (plain, smooth, keyed):
        stream.close()


def test_the_program_writes_labels_masks_and_a_state(tmp_path: Path, openvino: Segmenter, frames: Frames) -> None:
    words, street = "sky; road; car, automobile", frames[:4]
    raw = b"".join(frame.tobytes() for frame in street)
    out = {name: tmp_path / name for name in ("labels.u8", "masks", "sure.f32", "overlay.y4m", "state")}
    done = cli("--engine", "openvino", "--vocab", words, "--size", "360x640", "--labels", out["labels.u8"], "--json",
               "--masks", out["masks"], "--confidence", out["sure.f32"], "--overlay", out["overlay.y4m"],
               "--save", out["state"], data=raw)  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["frames"], facts["size"], facts["threads"]) == (4, [360, 640], 1)
    stream = openvino.stream(vocabulary=words)
    labels = [stream.step(frame, number / 25).labels for number, frame in enumerate(street)]
    got = np.fromfile(out["labels.u8"], np.uint8).reshape(4, 360, 640)
    assert np.array_equal(np.stack(labels), got)
    assert sum(facts["pixels"].values()) + facts["unknown"] == got.size
    writer = MaskWriter(tmp_path / "theirs", 3)
    for number, one in enumerate(labels):
        theirs = Picture.open(writer.write(f"{number:06d}", one))
        ours = Picture.open(out["masks"] / f"{number:06d}.png")
        assert np.array_equal(np.asarray(theirs), np.asarray(ours))
        assert np.array_equal(np.asarray(theirs.convert("RGB")), np.asarray(ours.convert("RGB")))
    assert out["sure.f32"].stat().st_size == 4 * got.size
    assert out["overlay.y4m"].stat().st_size > 3 * got.size
    onward = cli(
        "--vocab", words, "--raw", "360x640", "--load", out["state"], "--labels", tmp_path / "more.u8", data=raw
    )
    assert onward.returncode == 0, onward.stderr
    more = np.fromfile(tmp_path / "more.u8", np.uint8).reshape(4, 360, 640)
    assert np.array_equal(more[0], stream.step(street[0], 0.0).labels)
    assert not list(tmp_path.glob("*.part"))


def test_the_program_reads_y4m_and_folders(tmp_path: Path, frames: Frames) -> None:
    import av

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, frame in enumerate(frames[:2]):
        Picture.fromarray(frame).save(pictures / f"{number}.png")
    assert cli("--labels", tmp_path / "a.u8", pictures).returncode == 0
    raw = b"".join(frame.tobytes() for frame in frames[:2])
    assert cli("--labels", tmp_path / "b.u8", "--size", "360x640", data=raw).returncode == 0
    assert (tmp_path / "a.u8").read_bytes() == (tmp_path / "b.u8").read_bytes()
    y4m = tmp_path / "video.y4m"
    with av.open(str(y4m), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv444p"
        for frame in frames[:2]:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")):
                container.mux(packet)
    assert cli("--labels", tmp_path / "c.u8", y4m).returncode == 0
    one, other = (np.fromfile(tmp_path / name, np.uint8) for name in ("a.u8", "c.u8"))
    assert (one == other).mean() > 0.97  # colours went there and back


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["--size", "360"], 2, "HEIGHTxWIDTH"),
        (["--nothing"], 2, "--nothing"),
        (["--distant", "farthest"], 2, "--last"),
        (["--size", "360x640"], 1, "no frames"),
        (["--vocab", "road;road", "--size", "1x1"], 1, "repeats"),
        (["--labels", "/nowhere/a.u8", "--size", "1x1"], 1, "/nowhere"),
    ],
)
def test_the_programs_errors_are_one_line(options: list[str], code: int, part: str) -> None:
    done = cli(*options)
    assert done.returncode == code
    assert part in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_frames_cut_off_in_the_middle_leave_a_part(tmp_path: Path, frames: Frames) -> None:
    done = cli("--size", "360x640", "--labels", tmp_path / "a.u8", data=frames[0].tobytes() + b"rest")
    assert done.returncode == 1
    assert b"ends within frame 1" in done.stderr
    assert not (tmp_path / "a.u8").exists()
    assert (tmp_path / "a.u8.part").stat().st_size == 360 * 640


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed, and moved away from where it was installed."""
    place = tmp_path_factory.mktemp("prefix")
    done = run("cmake", "--install", BUILD.parent, "--prefix", place / "first", "--component", "sdk")
    assert done.returncode == 0, done.stderr
    (place / "first").rename(place / "moved")
    return place / "moved"


def environment() -> dict[str, str]:
    """With OpenVINO's libraries where the loader looks, and nothing of this project."""
    openvino = pytest.importorskip("openvino")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"LD_LIBRARY_PATH": str(Path(openvino.__file__).parent / "libs")}


def test_examples_build_against_the_moved_prefix(prefix: Path, tmp_path: Path, frames: Frames) -> None:
    example = prefix / "share/ov2vss/examples"
    made = run("cmake", "-S", example, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", cwd=tmp_path, env=environment())
    assert made.returncode == 0, made.stderr
    assert run("cmake", "--build", tmp_path, env=environment()).returncode == 0
    raw = b"".join(frame.tobytes() for frame in frames[:3])
    c = run(tmp_path / "label", BUNDLE, 640, 360, "sky; road; car", input=raw, env=environment())
    assert c.returncode == 0, c.stderr
    program = run(prefix / "bin/ov2vss-cli", "--bundle", BUNDLE, "--vocab", "sky; road; car", "--size", "360x640",
                  "--labels", tmp_path / "a.u8", input=raw, env=environment())  # fmt: skip
    assert program.returncode == 0, program.stderr
    assert (tmp_path / "a.u8").read_bytes() == c.stdout
    cpp = run(tmp_path / "label_cpp", BUNDLE, 640, 360, "sky; road; car", input=raw, env=environment())
    share = (np.frombuffer(c.stdout, np.uint8)[: 360 * 640] == 1).mean() * 100
    assert float(re.search(rb"frame 0: .* road ([\d.]+)%", cpp.stdout)[1]) == pytest.approx(share, rel=1e-3)
    threads = run(tmp_path / "four_threads", BUNDLE, 640, 360, input=raw, env=environment())
    assert b"are the same" in threads.stdout, threads.stderr


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="pkg-config is not installed")
def test_pkg_config_finds_the_moved_prefix(prefix: Path, tmp_path: Path, frames: Frames) -> None:
    paths = environment() | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "ov2vss", env=paths).stdout.decode().split()
    assert str(prefix / "include") in [os.path.normpath(flag[2:]) for flag in flags if flag.startswith("-I")]
    source = prefix / "share/ov2vss/examples/label.c"
    built = run("cc", source, "-o", tmp_path / "label", *flags, f"-Wl,-rpath,{prefix}/lib", env=paths)
    assert built.returncode == 0, built.stderr
    done = run(tmp_path / "label", BUNDLE, 640, 360, "sky; road", input=frames[0].tobytes(), env=environment())
    assert (done.returncode, len(done.stdout)) == (0, 360 * 640), done.stderr


def test_run_paths_are_relative(prefix: Path) -> None:
    for file in (prefix / "bin/ov2vss-cli", prefix / "lib/libov2vss.so", *(prefix / "lib/ov2vss").iterdir()):
        paths = re.findall(r"RUNPATH.*\[(.*)\]", run("readelf", "-d", file).stdout.decode())
        assert all(path.startswith("$ORIGIN") for path in paths[0].split(":") if path), (file, paths)


def test_eight_threads_on_a_stand_in_engine(tmp_path: Path) -> None:
    if not (BUILD / "ov2vss_threads").exists():
        pytest.skip("built without OV2VSS_TESTS")
    done = run(BUILD / "ov2vss_threads", tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"four separate runs" in done.stdout


def test_engine_options_have_the_layout_of_the_header(tmp_path: Path) -> None:
    names = {"ov2vss_engine_options": EngineOptions, "ov2vss_stream_options": StreamOptions, "ov2vss_image": Image,
             "ov2vss_result": Result}  # fmt: skip
    lines = "".join(f'printf("%zu ", sizeof({name}));' for name in names)
    (tmp_path / "a.c").write_text(
        f"#include <ov2vss/ov2vss.h>\n#include <stdio.h>\nint main(void) {{ {lines} return 0; }}"
    )
    compiled = run(
        "cc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        f"-I{ROOT}/sdk/include",
        tmp_path / "a.c",
        "-o",
        tmp_path / "a",
    )
    assert compiled.returncode == 0, compiled.stderr
    sizes = [int(size) for size in run(tmp_path / "a").stdout.split()]
    assert sizes == [ctypes.sizeof(struct) for struct in names.values()]
