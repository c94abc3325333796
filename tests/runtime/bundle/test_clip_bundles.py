"""Bundles that are made on demand: by one process at a time, and once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

PROGRAM = textwrap.dedent(
    """
    import pathlib, sys, time
    from ov2vss_runtime.bundle import clip_bundles

    root, name, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

    def export(clip, size, options, folder):
        with (root / "exports.txt").open("a") as file:
            file.write(name + "\\n")
        assert not folder.exists()
        time.sleep(seconds)
        folder.mkdir()
        (folder / "manifest.json").write_text(name)

    clip_bundles.user_cache_path = lambda *_, **__: root / "cache"
    clip_bundles._export = export
    print(clip_bundles.find_clip_bundle("clip:ViT-B-16/openai@64x96"))
    """
)


def start(root: Path, name: str, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(root), name, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_processes_make_one_bundle(tmp_path: Path) -> None:
    both = [start(tmp_path, "one", 0.5), start(tmp_path, "two", 0.5)]
    folders = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (folder,) = folders
    made = (tmp_path / "exports.txt").read_text().split()
    assert made == [(Path(folder) / "manifest.json").read_text()]


def test_a_process_that_is_killed_leaves_the_way_free(tmp_path: Path) -> None:
    killed = start(tmp_path, "killed", 60)
    wait_for(tmp_path / "exports.txt")
    waiting = start(tmp_path, "waiting", 0)
    time.sleep(0.3)
    assert waiting.poll() is None
    killed.kill()
    killed.communicate(timeout=60)
    made = Path(waiting.communicate(timeout=60)[0].strip())
    assert (made / "manifest.json").read_text() == "waiting"
    assert (tmp_path / "exports.txt").read_text().split() == ["killed", "waiting"]
