"""Every command and every piece of Python in the README, the tutorial and runtime.md is run, in order, in one folder.

``video.mp4``, ``classes.txt`` and ``camvid`` are small ones made here; training commands get fewer iterations. What
they leave behind cannot tell classes apart, so the export with low precisions takes the checkpoint in ``models``.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import cv2
import pytest

from ov2vss.data import ShapesVideos
from ov2vss_runtime.bundle.bundle import builtin_bundles
from ov2vss_runtime.video.file import VideoReader
from tests.conftest import SCRIPTS, moving_frames, write_video

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL, RUNTIME, GALLERY = (
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("tutorial", "runtime", "gallery")
)
OWN, PRODUCTION = (
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("your-own-videos", "in-production")
)
BLOCKS = re.findall(r"(?:<!-- (.*?) -->\n)?```(bash|python)\n(.*?)```", README + TUTORIAL + RUNTIME + PRODUCTION, re.S)
FEW_ITERATIONS = " --set iterations=4 --set per_frame_iterations=2 --set batch=2 --set crop=96x128 --set size=128x192"
SHORT = {
    "python benchmarks/latency.py": " --rounds 1 --frames 2 --backend onnxruntime",
    "python benchmarks/parity.py": f" --ckpt {ROOT}/models/street-lite --backend onnxruntime --precision fp32",
    "python benchmarks/scaling.py": " --frames 3",
    "python benchmarks/memory.py": " --frames 40 --settle 20",
    "ov2vss-train --out runs/shapes": " --set iterations=4 --set per_frame_iterations=2 --set batch=2 --no-score",
    "ov2vss-train --preset lite": FEW_ITERATIONS,
    "ov2vss-train --init": FEW_ITERATIONS,
    "ov2vss-train --out runs/first --resume": " --set iterations=5",
    "ov2vss-export --ckpt": " --size 128x192 --rollout 45 --calibrate long.mp4",
    "torchrun": f"{FEW_ITERATIONS} --no-score",
    "python benchmarks/ablation.py": f"{FEW_ITERATIONS} --preset tiny",
}


def small_camvid(folder: Path) -> None:
    """The generated clips as a data set in the VSPW layout."""
    for split in ("train", "val", "test"):
        videos = ShapesVideos(split)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.txt").write_text("\n".join(videos.videos[:2]))
        (folder / "classes.txt").write_text("\n".join(videos.classes.names) + "\n")
        (folder / "unseen.txt").write_text("\n".join(videos.classes.names[k] for k in videos.unseen) + "\n")
        for v, name in enumerate(videos.videos[:2]):
            for kind in ("origin", "mask"):
                (folder / "data" / name / kind).mkdir(parents=True)
            for i in range(5):
                rgb = cv2.cvtColor(videos.frame(v, i), cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(folder / "data" / name / "origin" / f"{i:05d}.jpg"), rgb)
                cv2.imwrite(str(folder / "data" / name / "mask" / f"{i:05d}.png"), videos.mask(v, i))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    street = [cv2.resize(f.rgb, (320, 180)) for f in islice(VideoReader(ROOT / "docs/images/street.mp4"), 50)]
    write_video(folder / "video.mp4", street[:20], audio=True)
    write_video(folder / "long.mp4", street)
    (folder / "frames").mkdir()
    for index, frame in enumerate(islice(VideoReader(folder / "video.mp4"), 4)):
        cv2.imwrite(str(folder / "frames" / f"{index}.png"), cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
    (folder / "animals.txt").write_text("zebra\nhorse, pony\n")
    (folder / "classes.txt").write_text("road\ncar, automobile\nsky\ntree\n")
    small_camvid(folder / "camvid")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    return folder


def shell(command: str, cwd: Path) -> None:
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.whole
def test_commands(workplace: Path) -> None:
    ran = []
    for marker, language, body in BLOCKS:
        if marker:
            continue  # the two set-up commands: one is below, the other is what runs this test
        if language == "python":
            (workplace / "example.py").write_text(body)
            shell(f"{sys.executable} example.py", workplace)
            continue
        if "tensorrt-rtx" in body and find_spec("tensorrt_rtx") is None:
            continue  # Linux x86-64 only
        for line in body.strip().splitlines():
            extra = next((more for start, more in SHORT.items() if line.startswith(start)), "")
            line = line.replace("--init models/", f"--init {ROOT}/models/")
            if line.startswith("ov2vss-export --ckpt runs/street"):
                line = line.replace("runs/street", str(ROOT / "models/street-lite"))
            shell(line + extra, workplace)
            ran.append(line)
    assert len(ran) >= 33
    asked = {"ov2vss-run", "ov2vss-train", "ov2vss-eval", "ov2vss-export", "torchrun", "python"}
    assert asked <= {line.split()[0] for line in ran}
    made = {p.name for p in workplace.iterdir()}
    assert {
        "result.mp4",
        "masks",
        "runs",
        "scores.json",
        "my-bundle",
        "video.ov2vss.mp4",
        "zero-shot.md",
        "first.mp4",
        "areas.jsonl",
        "both.mp4",
        "arrays",
        "ten.mp4",
    } <= made


def copy_tracked(folder: Path) -> None:
    """The files of this checkout that git knows, as a clone would have them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


@pytest.mark.whole
def test_run_command_on_a_fresh_environment(tmp_path: Path) -> None:
    """The newcomer's one line, in a copy of the tracked files, without torch and without the development tools."""
    copy_tracked(tmp_path)
    write_video(tmp_path / "video.mp4", moving_frames(4, (180, 320)))
    command = next(body for marker, _, body in BLOCKS if marker == "run command")
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "video.ov2vss.mp4").is_file()
    listed = subprocess.run(
        [tmp_path / ".venv/bin/python", "-c", "import importlib.util as u, ov2vss_runtime.stream.label_map as m;"
         "print(u.find_spec('torch') is None, m.native() is not None)"],
        capture_output=True, text=True, check=True, cwd=tmp_path / ".venv",
    )  # fmt: skip
    assert listed.stdout.split() == ["True", "True"]


@pytest.mark.slow
def test_the_tutorial_in_the_environment_that_it_builds(tmp_path: Path) -> None:
    """From top to bottom in a copy of the tracked files, set-up included (several GB); only training is shortened.

    The seconds of every step are printed; docs/results.md has them with their date.
    """
    copy_tracked(tmp_path)
    write_video(tmp_path / "video.mp4", moving_frames(12, (180, 320)))
    small_camvid(tmp_path / "camvid")
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    clean["PATH"] = f"{tmp_path / '.venv/bin'}{os.pathsep}{clean['PATH']}"
    blocks = re.findall(r"```(bash|python)\n(.*?)```", TUTORIAL, re.S)
    assert sum("pip install" in body for _, body in blocks) == 2
    for language, body in blocks:
        lines = body.strip().splitlines() if language == "bash" else ["python example.py"]
        if language == "python":
            (tmp_path / "example.py").write_text(body)
        for line in lines:
            command = line + next((more for start, more in SHORT.items() if line.startswith(start)), "")
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, env=clean, capture_output=True, text=True
            )
            print(f"{time.monotonic() - began:7.0f} s  {line}", flush=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    made = {p.name for p in tmp_path.iterdir()}
    assert {"video.ov2vss.mp4", "words.mp4", "runs", "first-bundle", "first.mp4"} <= made


def test_links_lead_somewhere() -> None:
    for folder, text in (
        (ROOT, README),
        (ROOT / "docs", TUTORIAL),
        (ROOT / "docs", RUNTIME + GALLERY + OWN + PRODUCTION),
    ):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (folder / target).exists(), target


def test_the_built_in_bundle_is_small_and_licensed() -> None:
    folder = builtin_bundles()["street-lite"]
    assert sum(p.stat().st_size for p in folder.iterdir()) < 80e6
    assert "non-commercial" in (folder / "LICENSE-WEIGHTS").read_text().lower()
