"""Whatever is in the files, the answer is a result or one line: videos, word lists, manifests."""

import copy
import json
import random
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import OV2VSSError
from tests.conftest import moving_frames, run_program, write_video

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data/video"


def fuzz(videos: Path, count: int, out: Path, timeout: int) -> list[str]:
    command = [sys.executable, "-m", "tests.programs.fuzz_videos", "--videos", videos, "--count", str(count)]
    done = subprocess.run(
        [*command, "--out", out], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-3000:])
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == count
    return lines


def test_damaged_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    frames = moving_frames(40, (64, 96))
    write_video(tmp_path / "videos/a.mp4", frames, audio=True)
    write_video(tmp_path / "videos/b.webm", frames[:20], codec="libvpx", time_base=Fraction(1, 1000),
                pts=[k * 40 for k in range(20)])  # fmt: skip
    write_video(tmp_path / "videos/c.avi", frames[:20], codec="mpeg4")
    write_video(tmp_path / "videos/d.mkv", frames[:20], codec="ffv1", pix_fmt="bgr0")
    write_video(tmp_path / "videos/e.ts", frames[:20], codec="mpeg2video")
    lines = fuzz(tmp_path / "videos", 60, tmp_path / "out", 600)
    assert 5 < sum(" done: " in line for line in lines) < 60


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared videos are not here")
def test_damaged_real_videos(tmp_path: Path) -> None:
    lines = fuzz(SHARED, 300, tmp_path / "out", 3000)
    print("\n".join(lines))
    assert 5 < sum(" done: " in line for line in lines) < 300


def test_damaged_videos_through_the_program(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", moving_frames(30, (64, 96)), audio=True).read_bytes()
    from tests.programs.fuzz_videos import mutate

    for number in range(6):
        (tmp_path / "damaged.mp4").write_bytes(mutate(video, random.Random(number)))
        done = run_program("ov2vss-run", "damaged.mp4", "--bundle", bundle, cwd=tmp_path, timeout=120)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_word_lists_of_any_bytes(tmp_path: Path) -> None:
    dice = random.Random(0)
    pieces = [
        "road",
        ",",
        ";",
        "#",
        "\n",
        " ",
        "é",
        "🚦",
        "\x00",
        "\u202e",
        "\ud800",
        "a" * 300,
        "ROAD",
        "\t",
        "ß",
        ",,",
    ]
    accepted, messages = 0, set()
    for number in range(2000):
        text = "".join(dice.choices(pieces, k=dice.randrange(12)))
        file = tmp_path / "words.txt"
        data = text.encode("utf-8", "surrogatepass")
        file.write_bytes(data if number % 3 else bytes(dice.randrange(256) for _ in range(dice.randrange(40))))
        for value in (file, text):
            try:
                words = Vocabulary.parse(value)
            except OV2VSSError as error:
                messages.add(str(error))
                continue
            accepted += 1
            folded = [w.casefold() for entry in words.entries for w in dict.fromkeys(entry)]
            assert len({*words.names}) == len(words.names) > 0
            assert all(w.strip() == w and w and len(w) <= 200 for w in folded)
    assert accepted > 200
    assert len(messages) > 20
    assert not [m for m in messages if "\n" in m]


def test_manifests_of_any_shape(bundle: Path, tmp_path: Path) -> None:
    """A value anywhere in the manifest is replaced by another: loaded or refused, never anything else."""
    folder = Path(shutil.copytree(bundle, tmp_path / "b"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["variants"].values():
        record.pop("verified")  # free-form: nothing is read from it
    dice = random.Random(0)
    others = [None, 0, -1, 1.5, 10**30, "", "x", "../x", [], {}, [[]], True, "\x00", "a" * 5000, {"a": 1}]

    def places(value, path=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))

    every = list(places(manifest))
    outcomes, messages = set(), set()
    for _ in range(300):
        changed = copy.deepcopy(manifest)
        *path, last = dice.choice(every)
        target = changed
        for key in path:
            target = target[key]
        if dice.random() < 0.2:
            del target[last]
        else:
            target[last] = dice.choice(others)
        (folder / "manifest.json").write_text(json.dumps(changed))
        try:
            opened = Bundle.open(folder)
            opened.variant("fp32")
            outcomes.add("loaded")
        except OV2VSSError as error:
            messages.add(str(error))
            outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}
    assert not [m for m in messages if "\n" in m]
