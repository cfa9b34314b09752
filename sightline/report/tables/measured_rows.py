"""Rows of the table of tested models: from what was measured of a plan's model, and those that stay beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sightline.export.counting import Cost, percent_change
from sightline.export.evaluation import Accuracy
from sightline.export.latency import Latency
from sightline.export.reading import read_description
from sightline.pruning.plan import PruningPlan
from sightline.report.tables.pruning import UNPRUNED, PruningRow, pruning_rows, read_pruning_table


def measured_row(
    backbone: str, plan: PruningPlan, found: Accuracy, cost: Cost, full: Cost, tokens_kept: float | None = None
) -> PruningRow:
    """Return the row of a tested model, without its speed.

    Args:
        backbone: Registered name.
        plan: What was changed.
        found: Its accuracy on the test split.
        cost: Its parameters and multiply-adds.
        full: Those of the reference model.
        tokens_kept: Share of the tokens that it keeps, in [0, 1]; None where it runs with all.
    """
    return PruningRow(
        backbone=backbone,
        plan_id=plan.plan_id,
        method=plan.method,
        score=plan.score,
        mode=plan.mode,
        k=plan.k,
        seed=plan.seed,
        removed_layers=plan.removed_layers,
        removed_heads=plan.removed_heads,
        top1=100 * found.correct / found.total,
        top1_low=found.interval.low,
        top1_high=found.interval.high,
        mean_class_acc=100 * found.mean_class,
        params=cost.params,
        params_change_pct=percent_change(cost.params, full.params),
        macs=cost.macs,
        macs_change_pct=percent_change(cost.macs, full.macs),
        tokens=None if plan.tokens is None else plan.tokens.label,
        tokens_kept_pct=None if tokens_kept is None else 100 * tokens_kept,
        format=plan.format,
        subjects=found.interval.subjects,
        interval_over=found.interval.over,
    )


def with_speed(
    rows: Sequence[PruningRow], single: Mapping[str, Latency], many: Mapping[str, Latency], timing_run: str
) -> list[PruningRow]:
    """Add to rows what was measured of their models.

    Args:
        rows: The rows.
        single: By plan, measured with one clip at a time.
        many: By plan, measured with several.
        timing_run: Name of the measurement.
    """
    return [
        replace(
            row,
            latency_ms_b1=single[row.plan_id].median_ms,
            clips_per_s=many[row.plan_id].clips_per_s,
            batch=many[row.plan_id].batch,
            timing_run=timing_run,
            latency_iqr_ms_b1=single[row.plan_id].iqr_ms,
            clips_per_s_iqr=many[row.plan_id].clips_per_s_iqr,
            timing_waited_pct=max(
                (of.waited_pct for of in (single[row.plan_id], many[row.plan_id]) if of.waited_pct is not None),
                default=None,
            ),
        )
        for row in rows
    ]


def earlier_rows(
    path: Path, export_of: Callable[[str], Path], weights_sha256: str, new: Sequence[PruningRow]
) -> list[PruningRow]:
    """Return the rows of a table that stay beside new ones: other plans for the same weights, e.g. by another score.

    Args:
        path: The table; there may be none yet.
        export_of: Gives the folder of a plan's exported model.
        weights_sha256: Hash of the full model's weights.
        new: The rows that are to be written.
    """
    if not path.exists():
        return []
    replaced, kept = {row.plan_id for row in new}, []
    for row in pruning_rows(read_pruning_table(path)):
        folder = export_of(row.plan_id)
        if row.plan_id in replaced or row.mode == UNPRUNED or not folder.exists():
            continue
        if read_description(folder)["provenance"].get("ranking", {}).get("weights_sha256") == weights_sha256:
            kept.append(row)
    return kept
