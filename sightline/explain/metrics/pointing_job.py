"""The pointing scores of every head on a split, clip by clip, in one Parquet file that is written as it is computed.

One row per clip, head and target: `SCHEMA`. The target ``action`` is that of temporal pointing: its scores are about
frames, those of the other targets about pixels. ``uniform_pointing`` and ``uniform_share`` are what a uniform map gets.
A target that a clip does not show has no row of that clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sightline.explain.metrics.pointing import ACTION, check_maps, clip_targets, pointing_scores
from sightline.run.atomic import replacing
from sightline.run.parts import PartStore
from sightline.run.ranks import Ranks
from sightline.run.sharing import Batches, BatchResult, share_result
from sightline.types import ClipBatch, ClipTruth, Unit

HeadMaps = Callable[[Tensor], Iterable[tuple[Unit, Tensor]]]
"""Gives every head with its maps (B, T, H, W) of clips (B, 3, T, H, W), one head after the other."""

_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("sample_id", _NAME),
        ("label", pa.int32()),
        ("group", _NAME),
        ("layer", pa.int32()),
        ("site", _NAME),
        ("head", pa.int32()),
        ("target", _NAME),
        ("pointing", pa.float64()),
        ("share", pa.float64()),
        ("uniform_pointing", pa.float64()),
        ("uniform_share", pa.float64()),
    ]
)


def point_split(
    sample_ids: Sequence[str],
    batches: Batches,
    truth: Callable[[str], ClipTruth],
    head_maps: HeadMaps,
    path: Path,
    ranks: Ranks | None = None,
    tolerance: float = 0.0,
    made_from: Mapping[str, Any] | None = None,
) -> Path:
    """Score every head on every clip, each clip by exactly one process, one batch in memory at a time.

    Args:
        sample_ids: Names of the clips to score: those of which something is known.
        batches: Gives an iterable of batches of the clips at these places of ``sample_ids``.
        truth: What is known of a clip, by its sample_id, in the frames and pixels of the batches.
        head_maps: Gives the maps.
        path: The file to write.
        ranks: The processes that share the work.
        tolerance: How many pixels a peak may be away from a box.
        made_from: What the scores depend on besides the tolerance. An interrupted job goes on where it was if it is
            the same; without it, jobs begin anew.

    Returns:
        The file. Its rows are in no particular order.

    Raises:
        ValueError: If no clip shows any target, or a map is not one.
    """

    def work(batch: ClipBatch) -> BatchResult:
        return BatchResult(point_batch(batch, truth, head_maps, tolerance))

    def join(parts: Iterable[pa.Table]) -> None:
        found = 0
        with replacing(path) as temporary:
            with pq.ParquetWriter(temporary, SCHEMA) as writer:
                for rows in parts:
                    found += len(rows)
                    writer.write_table(rows)
            if not found:
                raise ValueError(
                    "No clip shows anything to point at: its boxes are outside of what the model sees, or in other "
                    "frames."
                )

    made = None if made_from is None else {**made_from, "tolerance": tolerance}
    share_result(PartStore.beside(path, SCHEMA, made), sample_ids, batches, work, join, ranks, title="Pointing")
    return path


@torch.no_grad()
def point_batch(
    batch: ClipBatch, truth: Callable[[str], ClipTruth], head_maps: HeadMaps, tolerance: float = 0.0
) -> pa.Table:
    """Return the rows of a batch; arguments as of `point_split`."""
    clips = batch["clip"]
    frames, height, width = clips.shape[2:]
    targets = clip_targets([truth(name) for name in batch["sample_id"]], frames, height, width, tolerance)
    if ACTION in targets.names:
        raise ValueError(f"A box cannot be named {ACTION}: that is the target of temporal pointing. Rename it.")
    counts = torch.cat([targets.shown, targets.timed[:, None]], dim=1)
    if not counts.any():
        return SCHEMA.empty_table()
    shape = (len(clips), frames, height, width)
    uniform = pointing_scores(torch.ones(shape), targets)
    found = []
    for unit, maps in head_maps(clips):
        check_maps(maps, shape, str(unit))
        targets = targets.to(maps.device)
        found.append(_rows(batch, unit, targets.names, counts, [*pointing_scores(maps, targets), *uniform]))
    return pa.concat_tables(found).unify_dictionaries().combine_chunks()


def _rows(batch: ClipBatch, unit: Unit, targets: Sequence[str], counts: Tensor, columns: Sequence[Tensor]) -> pa.Table:
    """Lay out the scores (B, K + 1) of the targets that the clips show, where ``counts`` is true."""
    names = (*targets, ACTION)
    clip, target = (places.tolist() for places in counts.nonzero(as_tuple=True))
    labels = batch["label"].tolist()
    content = {
        "sample_id": [batch["sample_id"][i] for i in clip],
        "label": [labels[i] for i in clip],
        "group": [batch["group"][i] for i in clip],
        "layer": [unit.layer] * len(clip),
        "site": [unit.site] * len(clip),
        "head": [unit.head] * len(clip),
        "target": [names[k] for k in target],
    }
    scores = [column.cpu()[counts].tolist() for column in columns]
    content |= dict(zip(SCHEMA.names[len(content) :], scores, strict=True))
    return pa.table(
        {name: pa.array(values).cast(SCHEMA.field(name).type) for name, values in content.items()}, schema=SCHEMA
    )
