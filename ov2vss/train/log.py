"""The log of a run: one row per ten iterations."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path


def no_log(iteration: int, loss: float, rate: float, seconds: float) -> None:
    """Only the first process writes the log."""


class CsvLog:
    """``log.csv``: appended on resume, rows of iterations that are trained again are dropped."""

    COLUMNS = ("iteration", "loss", "learning_rate", "seconds")

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if start and path.is_file():
            with path.open(newline="") as stream:
                kept = [row for row in csv.reader(stream) if row and row[0].isdigit() and int(row[0]) <= start]
        self.stream = path.open("w", newline="")
        self.writer = csv.writer(self.stream)
        self.writer.writerow(self.COLUMNS)
        self.writer.writerows(kept)

    def __enter__(self) -> Callable[[int, float, float, float], None]:
        return self.write

    def write(self, iteration: int, loss: float, rate: float, seconds: float) -> None:
        self.writer.writerow((iteration, f"{loss:.6f}", f"{rate:.3e}", f"{seconds:.3f}"))
        self.stream.flush()

    def __exit__(self, *_: object) -> None:
        self.stream.close()
