"""Damaged videos through reading, streaming and writing; a program, so that a crash or a hang is seen from outside.

    python -m tests.programs.fuzz_videos --videos DIR --count 300 --out DIR

The network is a stand-in: what is looked at is everything around it. One line a file: ``done`` or ``refused``, and why.
Exit code 1 with a traceback for anything else; a file that takes more than :data:`LIMIT` seconds ends the process.
"""

import argparse
import faulthandler
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.outputs.targets import Targets
from ov2vss_runtime.stream.runner import run
from ov2vss_runtime.stream.segmenter_stream import SegmenterStream
from ov2vss_runtime.video.open_source import open_source
from tests.runtime.stream.test_stream import BookKeeper

LIMIT = 60
FRAMES = 25
"""Of each file that are run, beside the last one."""


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Flipped bytes, a cut, a splice, a hole, or several of these."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        kind = dice.choice(("flip", "flip", "header", "cut", "splice", "zero", "double"))
        at = dice.randrange(len(changed))
        if kind == "flip":
            for _ in range(dice.choice((1, 10, 200))):
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        elif kind == "header":
            for _ in range(8):
                changed[dice.randrange(min(2048, len(changed)))] = dice.randrange(256)
        elif kind == "cut":
            del changed[max(1, at) :]
        elif kind == "splice":
            length, target = dice.randrange(1, 5000), dice.randrange(len(changed))
            changed[target:target] = changed[at : at + length]
        elif kind == "zero":
            length = min(dice.randrange(1, 5000), len(changed) - at)
            changed[at : at + length] = bytes(length)
        else:
            changed += changed[at:]
    return bytes(changed)


def segment(path: Path, out: Path) -> str:
    """What became of one file."""
    engine = BookKeeper()
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(
            gap=3, temporal={}, source={}, vocabulary=SimpleNamespace(templates=["{}"], added={}, synonyms="average")
        ),
        cached_embeddings=lambda *_: None,
    )
    try:
        source = open_source(path)
        segmenter = SimpleNamespace(
            engine=engine, bundle=bundle, threads=1, words=lambda words: words, embeddings=lambda words: None
        )
        stream = SegmenterStream(segmenter, "a; b", 3, "farthest", source, None)
        stream.limit = FRAMES
        last = source.last_frame()
        stream.set_last(last.rgb, last.time)
        report = run(stream, Targets(out / "out.mp4", masks=out / "masks"))
    except OV2VSSError as error:
        message = str(error)
        if "\n" in message.strip() or not message:
            raise
        return f"refused: {message}"
    return f"done: {report['frames']} frames"


def mutations(folder: Path, first: int, count: int, seed: int, out: Path) -> Iterator[tuple[str, Path]]:
    videos = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".webm", ".avi", ".mkv", ".ts"))
    for number in range(first, count):
        dice = random.Random(f"{seed}/{number}")
        original = videos[number % len(videos)]
        path = out / f"damaged{original.suffix}"
        path.write_bytes(mutate(original.read_bytes(), dice))
        yield f"{number:04d} {original.name}", path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number to begin at, to go on after a break")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, path in mutations(args.videos, args.first, args.count, args.seed, args.out):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        print(name, segment(path, args.out), flush=True)
        faulthandler.cancel_dump_traceback_later()
        path.unlink()
        stray = [p.name for p in args.out.iterdir() if p.name not in ("out.mp4", "out.part.mp4", "masks")]
        if stray:
            sys.exit(f"left behind: {stray}")


if __name__ == "__main__":
    main()
