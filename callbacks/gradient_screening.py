"""A cheap ranking of all heads by gradient, and how well it agrees with the exact scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import torch

from callbacks.analysis import Analysis, Context
from callbacks.logging_results import log_results
from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.matrix import UNIT
from sightline.relevance.memory import StackSize
from sightline.relevance.precision import forward_precision
from sightline.relevance.scores import score
from sightline.relevance.screening import agreement, gradient_proxy, unit_rows
from sightline.run.csv_table import write_table
from sightline.run.parts import PartStore
from sightline.run.sharing import BatchResult, share_result
from sightline.types import ClipBatch, Unit

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("layer", pa.int64()),
        ("site", pa.string()),
        ("head", pa.int64()),
        ("proxy", pa.float64()),
        ("r", pa.float64()),
    ]
)
"""Rows of a clip and a head; ``r`` is there where the clip was also scored exactly."""


class GradientScreening(Analysis):
    """Ranks all heads by gradient: tables/screening_<split>.csv, and its rank correlation with exact scores.

    One forward and one backward pass per clip instead of one suffix of the model per head. The exact scores of a
    subsample say how far the ranking is to be trusted.
    """

    command: ClassVar[str] = "ablate"

    def __init__(self, exact_samples: int = 32, batch_size: int | None = None) -> None:
        """Set up the screening.

        Args:
            exact_samples: Clips, spread over the split, on which heads are also ablated exactly, to compare.
            batch_size: Clips per batch; the data module's if not given.
        """
        if exact_samples < 1:
            raise ValueError(f"Expected exact_samples >= 1, to say how well screening ranks, got {exact_samples}.")
        self.exact_samples = exact_samples
        self.batch_size = batch_size

    def analyse(self, context: Context) -> None:
        clips = context.data.clips(context.split)
        chosen = torch.linspace(0, len(clips) - 1, min(self.exact_samples, len(clips))).round().int().tolist()
        compared = {clips[place].sample_id for place in chosen}
        path = context.run.table(f"screening_{context.split}")
        made_from = {
            "weights_sha256": weights_sha256(context.backbone),
            "data_sha256": context.data.data_hash(context.split),
            "exact_samples": self.exact_samples,
        }
        units = context.backbone.units("heads")
        stack = StackSize()
        share_result(
            PartStore.beside(path, SCHEMA, made_from),
            [clip.sample_id for clip in clips],
            lambda places: context.batches(context.split, places, self.batch_size),
            lambda batch: BatchResult(_screened(context.backbone, batch, units, compared, stack)),
            lambda rows: _report(context, pa.concat_tables(rows).to_pandas(), path),
            context.ranks,
            title=f"Screening {len(units)} heads",
        )


def _screened(
    backbone: Backbone, batch: ClipBatch, units: Sequence[Unit], compared: Collection[str], stack: StackSize
) -> pa.Table:
    """Score a batch by gradient, and those of its clips that are to be compared exactly too."""
    device = next(backbone.parameters()).device
    clips, labels, ids = batch["clip"].to(device), batch["label"], batch["sample_id"]
    chosen = [place for place, name in enumerate(ids) if name in compared]
    r = torch.full((len(units), len(ids)), torch.nan, dtype=torch.float64)
    with forward_precision("float32", device):
        proxy = gradient_proxy(backbone, clips, labels)
        if chosen:
            logits = ablated_logits(backbone, clips[chosen], units, stack=stack)
            r[:, chosen] = score(logits.base, logits.units, labels[chosen]).r.double()
    rows = unit_rows(proxy, units, ids, "proxy").assign(r=r.T.reshape(-1).tolist())
    return pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)


def _report(context: Context, rows: pd.DataFrame, path: Path) -> None:
    found = agreement(rows.drop(columns="r"), rows.drop(columns="proxy").dropna(subset="r"))
    ranking = rows.groupby(UNIT, sort=True)["proxy"].agg(["mean", "median"]).reset_index()
    ranking = ranking.sort_values(["mean", *UNIT], ignore_index=True)
    write_table(ranking.assign(spearman=found.spearman, exact_samples=found.samples), path)
    log_results(context.loggers, {f"screening_{context.split}": ranking})
    print(
        f"Wrote {path}: {found.heads} heads by gradient, the least relevant first. Rank correlation with the exact "
        f"scores (mean r) on {found.samples} clips: {found.spearman:.3f}."
    )
