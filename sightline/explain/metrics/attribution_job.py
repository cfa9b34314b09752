"""The scores of attribution methods on a split, clip by clip, in one Parquet file that is written as it is computed.

One row per clip, method and metric: `SCHEMA`. What means nothing for a clip (it shows no box) has no row.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Method
from sightline.explain.metrics.attribution_scores import ClipTask, Found, score_clip
from sightline.explain.metrics.pointing import clip_targets
from sightline.run.atomic import replacing
from sightline.run.parts import PartStore
from sightline.run.ranks import Ranks
from sightline.run.sharing import SECONDS_PER_PART, Batches, BatchResult, share_result
from sightline.types import ClipBatch, ClipTruth

_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("sample_id", _NAME),
        ("label", pa.int32()),
        ("group", _NAME),
        ("target", pa.int32()),
        ("method", _NAME),
        ("metric", _NAME),
        ("value", pa.float64()),
        ("chance", pa.float64()),
    ]
)
Target = Literal["predicted", "label"]


def attribute_split(
    sample_ids: Sequence[str],
    batches: Batches,
    backbone: Backbone,
    methods: Mapping[str, Method],
    groups: Sequence[str],
    truth: Callable[[str], ClipTruth],
    path: Path,
    ranks: Ranks | None = None,
    target: Target = "predicted",
    made_from: Mapping[str, Any] | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
) -> Path:
    """Score every method on every clip, each clip by exactly one process.

    Args:
        sample_ids: Names of the clips.
        batches: Gives an iterable of batches of the clips at these places of ``sample_ids``.
        backbone: In evaluation mode.
        methods: By label.
        groups: Which groups of metrics.
        truth: What is known of a clip, by its sample_id, in the frames and pixels of the batches; nothing may be.
        path: The file to write.
        ranks: The processes that share the work.
        target: Whether the class that the model predicts is explained, or the clip's label.
        made_from: What the scores depend on besides these settings. An interrupted job goes on where it was if it is
            the same; without it, jobs begin anew.
        seconds_per_part: How long to collect rows before they are written.

    Returns:
        The file. Its rows are in no particular order.
    """
    device = next(backbone.parameters()).device

    def work(batch: ClipBatch) -> BatchResult:
        tables = [SCHEMA.empty_table()]
        for place, name in enumerate(batch["sample_id"]):
            clip = batch["clip"][place : place + 1].to(device)
            frames, height, width = clip.shape[2:]
            explained = batch["label"][place : place + 1].to(device)
            if target == "predicted":
                with torch.no_grad():
                    explained = backbone(clip).argmax(dim=1)
            known = truth(name)
            targets = clip_targets([known], frames, height, width)
            task = ClipTask(clip, explained, targets, zlib.crc32(name.encode()), known.masks)
            tables.append(_rows(batch, place, int(explained), score_clip(backbone, methods, groups, task)))
        return BatchResult(pa.concat_tables(tables).unify_dictionaries().combine_chunks())

    def join(parts: Iterable[pa.Table]) -> None:
        with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
            for rows in parts:
                writer.write_table(rows)

    made = None
    if made_from is not None:
        made = {**made_from, "methods": list(methods), "metrics": list(groups), "target": target}
    store, title = PartStore.beside(path, SCHEMA, made), "Attribution"
    share_result(store, sample_ids, batches, work, join, ranks, title=title, seconds_per_part=seconds_per_part)
    return path


def _rows(batch: ClipBatch, place: int, target: int, found: Sequence[Found]) -> pa.Table:
    count = len(found)
    content = {
        "sample_id": [batch["sample_id"][place]] * count,
        "label": [int(batch["label"][place])] * count,
        "group": [batch["group"][place]] * count,
        "target": [target] * count,
        "method": [one.method for one in found],
        "metric": [one.metric for one in found],
        "value": [one.value for one in found],
        "chance": [one.chance for one in found],
    }
    return pa.table(
        {name: pa.array(values).cast(SCHEMA.field(name).type) for name, values in content.items()}, schema=SCHEMA
    )
