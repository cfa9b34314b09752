"""Scoring a whole split: shared among processes, resumable, with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from sightline.backbones import Backbone
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import StackSize
from sightline.relevance.precision import Precision, forward_precision
from sightline.relevance.scores import score
from sightline.relevance.table import Progress, ScoreTable, rows_of
from sightline.run.ranks import Ranks
from sightline.types import ClipBatch, Unit

# What a killed run loses at most, in seconds of work.
SECONDS_PER_PART = 20.0


def score_split(
    backbone: Backbone,
    table: ScoreTable,
    sample_ids: Sequence[str],
    batches: Callable[[list[int]], Iterable[ClipBatch]],
    *,
    ranks: Ranks | None = None,
    largest_stack: int | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
) -> None:
    """Ablate every unit of a kind on every sample of a split and write the score table.

    Each sample is scored by exactly one process. Started again after an interruption, with any number of processes,
    it goes on with the samples that no finished part holds.

    Args:
        backbone: In evaluation mode, on the device to use.
        table: Where the scores go; its settings name the kind of unit.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        ranks: The processes that share the work.
        largest_stack: The most variants of a batch to run as one; by default as many as the memory allows.
        overwrite: Replace a table made with other settings.
        provenance: What else to record in the manifest.
        seconds_per_part: How long to collect scores before they are written.

    Raises:
        ValueError: If a table made with other settings is there and ``overwrite`` is false.
        RuntimeError: If another process failed.
    """
    ranks = ranks or Ranks()
    ranks.together(lambda: table.begin(overwrite), only_first=True)
    if ranks.together(table.is_finished):
        return
    # Every process reads what is done before any of them adds to it: all must divide the same list.
    done = ranks.together(table.progress)
    assert done is not None
    # What could not be read before is tried again: its disk may be back.
    todo = [place for place, name in enumerate(sample_ids) if name not in done.done]
    mine = todo[ranks.rank :: ranks.world]

    units = backbone.units(table.settings.kind)
    title = f"Ablating {len(units)} {table.settings.kind}"

    def work() -> None:
        stack = StackSize(largest_stack)
        score_samples(backbone, table, units, batches(mine), len(mine), ranks, stack, seconds_per_part, title)

    ranks.together(work)
    ranks.together(lambda: table.finish(sample_ids, provenance or {}), only_first=True)


def score_samples(
    backbone: Backbone,
    table: ScoreTable,
    units: Sequence[Unit],
    batches: Iterable[ClipBatch],
    total: int,
    ranks: Ranks,
    stack: StackSize,
    seconds_per_part: float,
    title: str,
) -> None:
    """Score this process's share of some samples and write the parts.

    Args:
        backbone: In evaluation mode.
        table: Where the parts go.
        units: What to ablate.
        batches: The samples.
        total: How many they are.
        ranks: This process among those that share the work.
        stack: How many variants to run as one.
        seconds_per_part: How long to collect scores before they are written.
        title: What the progress bar says.
    """
    rows: list[pa.Table] = []
    part = Progress()
    written = time.monotonic()
    first, evaluations = True, 0
    title += f" (rank 0 of {ranks.world})" if ranks.world > 1 else ""
    with tqdm(total=total, desc=title, unit="clip", disable=ranks.rank != 0, mininterval=1.0) as bar:
        for batch in batches:
            if len(batch["sample_id"]):
                batch_rows, floor = score_batch(backbone, batch, units, stack, first, table.settings.precision)
                rows.append(batch_rows)
                part.noise_floor = floor if floor is not None else part.noise_floor
                first = False
            part.done.update(batch["sample_id"])
            part.left_out.update(batch["unreadable"])
            evaluations += len(batch["sample_id"]) * len(units)
            bar.set_postfix_str(f"{evaluations:,} ablations", refresh=False)
            bar.update(len(batch["sample_id"]) + len(batch["unreadable"]))
            if time.monotonic() - written >= seconds_per_part:
                table.write_part(pa.concat_tables(rows) if rows else None, part)
                rows, part, written = [], Progress(), time.monotonic()
        if part.done or part.left_out:
            table.write_part(pa.concat_tables(rows) if rows else None, part)


def score_batch(
    backbone: Backbone,
    batch: ClipBatch,
    units: Sequence[Unit],
    stack: StackSize,
    control: bool = False,
    precision: Precision = "float32",
) -> tuple[pa.Table, float | None]:
    """Score one batch: the rows of the table, and the noise floor if ``control`` asks for it."""
    device = next(backbone.parameters()).device
    labels = batch["label"]
    with forward_precision(precision, device):
        logits = ablated_logits(backbone, batch["clip"].to(device), units, stack=stack, control=control)
    scores = score(logits.base, logits.units, labels)
    floor = None
    if control:
        floor = float(score(logits.base, logits.control, labels).r.max())
    rows = rows_of(scores, units, batch["sample_id"], batch["label"].tolist(), batch["group"])
    return rows, floor
