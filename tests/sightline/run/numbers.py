"""Cheap work about samples that are numbers, for tests of sharing; also as a process that a test can kill.

python -m tests.sightline.run.numbers FOLDER NUMBER OF SECONDS_PER_BATCH
"""

import sys
import time
from pathlib import Path

import pyarrow as pa

from sightline.run.parts import PartStore, Piece
from sightline.run.ranks import Ranks
from sightline.run.sharing import BatchResult, share_samples

NAMES = [f"n{place:03d}" for place in range(90)]
BAD = "n013"
SCHEMA = pa.schema([("sample_id", pa.string()), ("unit", pa.int32()), ("value", pa.float64())])
SETTINGS = {"weights_sha256": "w", "units": [0, 1, 2]}


def store(folder: Path, **changes) -> PartStore:
    return PartStore(folder / "numbers.parts", SCHEMA, {**SETTINGS, **changes})


class Numbers:
    """Batches of samples without clips, one of which cannot be read; can be made to die after some batches."""

    def __init__(self, size: int = 2, die_after: int | None = None, seconds: float = 0.0) -> None:
        self.size, self.die_after, self.seconds, self.served = size, die_after, seconds, []

    def batches(self, places: list[int]):
        for number, start in enumerate(range(0, len(places), self.size)):
            if number == self.die_after:
                raise KeyboardInterrupt
            time.sleep(self.seconds)
            chosen = places[start : start + self.size]
            self.served += chosen
            names = [NAMES[place] for place in chosen]
            yield {
                "sample_id": [name for name in names if name != BAD],
                "unreadable": [(name, "cut short") for name in names if name == BAD],
            }


def work(batch) -> BatchResult:
    """Three rows per sample; samples that are multiples of ten have none."""
    rows = [
        (name, unit, int(name[1:]) / (unit + 3)) for name in batch["sample_id"] for unit in range(3) if name[-1] != "0"
    ]
    return BatchResult(pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=SCHEMA))


def do_piece(folder: Path, piece: Piece, numbers: Numbers) -> None:
    parts = store(folder)
    parts.begin()
    share_samples(parts, NAMES, numbers.batches, work, Ranks(), piece=piece, seconds_per_part=0)


if __name__ == "__main__":
    do_piece(Path(sys.argv[1]), Piece(int(sys.argv[2]), int(sys.argv[3])), Numbers(seconds=float(sys.argv[4])))
