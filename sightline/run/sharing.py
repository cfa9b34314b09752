"""Working through the samples of a list together: every sample by exactly one process, resumable, with progress.

What has to be computed are the samples that no part holds yet (`sightline.run.parts`). The processes of a job divide
them; machines that share nothing do a numbered piece of the list each, and their parts are gathered afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
from tqdm.auto import tqdm

from sightline.run.parts import PartStore, Piece
from sightline.run.ranks import Ranks
from sightline.types import ClipBatch

SECONDS_PER_PART = 20.0
"""What a killed job loses at most, in seconds of work."""
_BYTES_PER_PART = 64 * 2**20

Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchResult:
    """What was found out about a batch.

    Attributes:
        rows: Rows about its samples, with a column ``sample_id``; there need not be any.
        notes: What else the part is to say; of several batches in a part, the last one's.
    """

    rows: pa.Table
    notes: Mapping[str, Any] = field(default_factory=dict)


Work = Callable[[ClipBatch], BatchResult]
Batches = Callable[[list[int]], Iterable[ClipBatch]]
"""Gives an iterable of batches of the samples at these places of a list."""


def share_result(
    store: PartStore,
    sample_ids: Sequence[str],
    batches: Batches,
    work: Work,
    join: Callable[[Iterator[pa.Table]], Result],
    ranks: Ranks | None = None,
    *,
    title: str | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
) -> Result | None:
    """Compute something about every sample of a list and join it; parts that are there already are used.

    Args:
        store: Where the parts go; deleted at the end.
        sample_ids: Names of all samples of the list.
        batches: Gives batches of them.
        work: Finds out about a batch.
        join: Called on rank 0 with all rows, a few at a time and in no particular order; writes the result.
        ranks: The processes that share the work.
        title: What the progress bar says; there is none without.
        seconds_per_part: How long to collect rows before they are written.

    Returns:
        What ``join`` returns on rank 0, None elsewhere.

    Raises:
        RuntimeError: If another process failed.
    """
    ranks = ranks or Ranks()
    ranks.together(store.begin, only_first=True)
    share_samples(store, sample_ids, batches, work, ranks, title=title, seconds_per_part=seconds_per_part)

    def finish() -> Result:
        store.check_complete(sample_ids)
        result = join(store.rows())
        store.discard()
        return result

    return ranks.together(finish, only_first=True)


def share_samples(
    store: PartStore,
    sample_ids: Sequence[str],
    batches: Batches,
    work: Work,
    ranks: Ranks,
    *,
    piece: Piece | None = None,
    title: str | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
) -> None:
    """Do what no part holds yet of a list, or of a piece of it; arguments as of `share_result`."""
    # Every process reads what is done before any of them adds to it: all must divide the same list.
    progress = ranks.together(store.progress)
    assert progress is not None
    places = range(len(sample_ids)) if piece is None else piece.places(len(sample_ids))
    # What could not be read before is tried again: its disk may be back.
    todo = [place for place in places if sample_ids[place] not in progress.done]
    mine = todo[ranks.rank :: ranks.world]
    pieces = None if piece is None else piece.of

    def compute() -> None:
        work_through(store, batches(mine), work, len(mine), ranks, title, seconds_per_part, pieces)

    ranks.together(compute)


def work_through(
    store: PartStore,
    batches: Iterable[ClipBatch],
    work: Work,
    total: int,
    ranks: Ranks,
    title: str | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
    pieces: int | None = None,
) -> None:
    """Do this process's share and write the parts.

    Args:
        store: Where the parts go.
        batches: The samples.
        work: Finds out about a batch.
        total: How many samples they are.
        ranks: This process among those that share the work.
        title: What the progress bar says; there is none without.
        seconds_per_part: How long to collect rows before they are written.
        pieces: How many pieces the list was divided into, if this is one of them.
    """
    part, written = _Collected(), time.monotonic()
    if title is not None and ranks.world > 1:
        title += f" (rank 0 of {ranks.world})"
    hidden = title is None or ranks.rank != 0
    with tqdm(total=total, desc=title, unit="clip", disable=hidden, mininterval=1.0) as bar:
        for batch in batches:
            if batch["sample_id"]:
                part.add(work(batch))
            part.done += batch["sample_id"]
            part.left_out.update(batch["unreadable"])
            bar.update(len(batch["sample_id"]) + len(batch["unreadable"]))
            if time.monotonic() - written >= seconds_per_part or part.bytes > _BYTES_PER_PART:
                store.write(part.rows, part.done, part.left_out, part.notes, pieces)
                part, written = _Collected(), time.monotonic()
        if part.done or part.left_out:
            store.write(part.rows, part.done, part.left_out, part.notes, pieces)


@dataclass
class _Collected:
    """What is not written yet."""

    rows: list[pa.Table] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0

    def add(self, result: BatchResult) -> None:
        if result.rows.num_rows:
            self.rows.append(result.rows)
            self.bytes += result.rows.nbytes
        self.notes.update(result.notes)
