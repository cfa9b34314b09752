"""Scoring a whole split: shared among processes, resumable, with progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sightline.backbones import Backbone
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import StackSize
from sightline.relevance.precision import Precision, forward_precision
from sightline.relevance.scores import score
from sightline.relevance.table import ScoreTable, rows_of
from sightline.run.parts import Piece
from sightline.run.ranks import Ranks
from sightline.run.sharing import SECONDS_PER_PART, Batches, BatchResult, Work, share_samples
from sightline.types import ClipBatch, Unit


def score_split(
    backbone: Backbone,
    table: ScoreTable,
    sample_ids: Sequence[str],
    batches: Batches,
    *,
    piece: Piece | None = None,
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
        piece: Score this piece of the split alone and leave the table unfinished. Pieces that other machines scored are
            brought together by `ScoreTable.gather`, and made a table by `ScoreTable.finish`.
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
    units = backbone.units(table.settings.kind)
    work = score_work(backbone, units, StackSize(largest_stack), table.settings.precision)
    title = f"Ablating {len(units)} {table.settings.kind}"
    share_samples(
        table.parts, sample_ids, batches, work, ranks, piece=piece, title=title, seconds_per_part=seconds_per_part
    )
    if piece is None:
        ranks.together(lambda: table.finish(sample_ids, provenance or {}), only_first=True)


def score_work(backbone: Backbone, units: Sequence[Unit], stack: StackSize, precision: Precision = "float32") -> Work:
    """Return what scores a batch; with the first one, it also measures the noise floor.

    Args:
        backbone: In evaluation mode.
        units: What to ablate.
        stack: How many variants to run as one.
        precision: Number format of the forward passes.
    """
    first = True

    def work(batch: ClipBatch) -> BatchResult:
        nonlocal first
        rows, floor = score_batch(backbone, batch, units, stack, first, precision)
        first = False
        return BatchResult(rows, {} if floor is None else {"noise_floor": floor})

    return work


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
