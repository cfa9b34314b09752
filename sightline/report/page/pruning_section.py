"""The section on pruned models: accuracy and cost of each, and which depth meets the targets."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sightline.report.figures.pruning_curves import backbone_curves
from sightline.report.numbers import column, fixed, signed
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table, Text, chart
from sightline.report.page.charts import accuracy_curves
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.pruning import RELEVANCE_SCORES, reference_rows
from sightline.report.tables.pruning_layout import (
    amount_and_change,
    plan_label,
    removed_units,
    subjects_note,
    timing_marks,
    timing_notes,
)
from sightline.report.verdict.cut_rules import all_cuts
from sightline.report.verdict.evidence import read_evidence
from sightline.statistics.bootstrap import MIN_GROUPS

TARGETS = ("plan_id", "k", "gmacs", "latency_ms", "val_top1_drop", "meets")


def pruning_section(run: RunResults) -> Section:
    """What smaller models keep of the accuracy, and what they cost."""
    section = Section(
        "pruning",
        "Pruned models",
        "Smaller models made by removing layers or heads, or by going on with fewer tokens, without training again. "
        "‘lowest’ removes the least relevant units; ‘highest’ removes the most relevant ones, as a control: if "
        "relevance means something, it loses more.",
    )
    frame = run.pruning()
    if frame is None or frame.empty:
        section.blocks.append(
            Missing("No model was pruned yet. Export and test smaller models with", run.command("prune"))
        )
    else:
        section.blocks += [*_table(frame, run), *_charts(frame, _majority(run))]
    targets = run.table("targets", TARGETS, "prune")
    if targets is not None:
        section.blocks.append(_targets(targets))
    return section


def _majority(run: RunResults) -> float | None:
    """Accuracy of always predicting the most frequent class of the test clips, in percent."""
    predictions = run.predictions()
    if predictions is None or predictions.empty:
        return None
    return 100 * float(predictions["label"].value_counts(normalize=True).max())


def _charts(frame: pd.DataFrame, majority: float | None) -> list[Block]:
    blocks: list[Block] = []
    kinds = (
        ("Accuracy against cost", frame, "macs", "The arithmetic that one clip costs; up and to the left is better."),
        ("Accuracy against depth", frame[frame["removed_heads"] == ""], "k", "How accuracy falls with every layer."),
    )
    for title, rows, axis, told in kinds:
        try:
            found = backbone_curves(rows, axis)
        except ValueError as error:
            blocks.append(Text(f"{title}: {error}", note=True))
            continue
        for backbone, full, curves in found:
            name = title if len(found) == 1 else f"{title}: {backbone}"
            shaded = any(curve.shaded for curve in curves)
            shade = " Shaded: 95 % interval of one model, or the range over several seeds." if shaded else ""
            blocks.append(chart(accuracy_curves(curves, full, axis, majority), name, told + shade, height=380))
    return blocks


def _table(frame: pd.DataFrame, run: RunResults) -> list[Block]:
    """Every tested model in as many columns as a page of 1,280 pixels shows; folded, where the models lie."""
    scores = {score for score in frame["score"] if score in RELEVANCE_SCORES}
    marks = timing_marks(frame)
    models: list[Any] = list(frame.itertuples(index=False))
    plans = [_plan(row, len(scores) > 1) for row in models]
    columns = {
        Column("plan"): plans,
        Column("k", True): [str(row.k) for row in models],
        Column("removed layers"): [removed_units(row) for row in models],
        Column("top‑1 % (95 %)", True): [_accuracy(row) for row in models],
        Column("change (95 %)", True, "Points of top-1 against the unpruned model, paired clip by clip"): _changes(
            frame, run
        ),
        Column("mean class %", True, "Mean over classes of the share that is right"): [
            fixed(row.mean_class_acc, 1) for row in models
        ],
        Column("parameters", True): [_amount(row.params, row.params_change_pct) for row in models],
        Column("multiply-adds", True): [_amount(row.macs, row.macs_change_pct) for row in models],
        Column("tokens kept %", True, "of all tokens, mean over layers and clips"): [
            fixed(row.tokens_kept_pct, 1) for row in models
        ],
        Column("ms per clip", True, "at batch 1; in brackets the interquartile range of the repeats"): _spread(
            frame, "latency_ms_b1", "latency_iqr_ms_b1"
        ),
        Column(_throughput(frame), True, "in brackets the interquartile range of the repeats"): _spread(
            frame, "clips_per_s", "clips_per_s_iqr"
        ),
        Column("timed", False, "in which measurement"): [marks.get(row.timing_run, "") for row in models],
    }
    shown = {"tokens kept %": frame["tokens_kept_pct"].notna().any(), "timed": bool(marks)}
    columns = {column: cells for column, cells in columns.items() if shown.get(column.title, True)}
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    strong = frozenset(place for place, reference in enumerate(reference_rows(frame)) if reference)
    caption = (
        f"Every tested model, on the test clips. Intervals are over subjects where there are at least {MIN_GROUPS}, "
        "and else over clips; that of the change is paired clip by clip."
    )
    notes = (caption, subjects_note(frame), *timing_notes(frame))
    table = Table(list(columns), rows, " ".join(filter(None, notes)), strong)
    folders = [[plan, str(row.k), f"pruned/{row.plan_id}"] for plan, row in zip(plans, models, strict=True)]
    exported = [line for line, reference in zip(folders, reference_rows(frame), strict=True) if not reference]
    where = Table([Column("plan"), Column("k", True), Column("folder")], exported)
    return [table, Folded("Where these models lie", [where])]


def _plan(row: Any, name_score: bool) -> str:
    """Name a plan; of relevance, with the end of the ranking that it removes."""
    end = f"{row.mode} " if row.k > 0 and row.score in RELEVANCE_SCORES else ""
    return end + plan_label(row, name_score)


def _accuracy(row: Any) -> str:
    ends = "" if pd.isna(row.top1_low) else f" ({fixed(row.top1_low, 1)}\N{EN DASH}{fixed(row.top1_high, 1)})"
    return fixed(row.top1, 1) + ends


def _changes(frame: pd.DataFrame, run: RunResults) -> list[str]:
    """Write every model's change of top-1 against the unpruned one, with its interval where clips are known."""
    cuts = {cut.row.plan_id: cut.change for cut in all_cuts(read_evidence(run))}
    full = frame.loc[reference_rows(frame), "top1"]
    cells = []
    row: Any
    for row, reference in zip(frame.itertuples(index=False), reference_rows(frame), strict=True):
        found = cuts.get(str(row.plan_id))
        if reference or full.empty:
            cells.append("")
        elif found is None:
            cells.append(signed(row.top1 - full.iloc[0], 1))
        else:
            ends = f"{signed(100 * found.low, 1)} to {signed(100 * found.high, 1)}"
            cells.append(f"{signed(100 * found.change, 1)} ({ends})")
    return cells


def _spread(frame: pd.DataFrame, name: str, iqr: str) -> list[str]:
    """Write a column of medians, each with the interquartile range of its repeats where it is known."""
    pairs = zip(frame[name], frame[iqr], strict=True)
    return [fixed(value, 1) + ("" if pd.isna(spread) else f" ({spread:.1f})") for value, spread in pairs]


def _amount(value: Any, change: Any) -> str:
    return amount_and_change(value, change).replace("-", "\N{MINUS SIGN}")


def _throughput(frame: pd.DataFrame) -> str:
    batches = frame["batch"].dropna().unique().tolist()
    return f"clips/s at batch {int(batches[0])}" if len(batches) == 1 else "clips/s"


def _targets(targets: pd.DataFrame) -> Folded:
    met = targets["meets"].astype(str).str.lower() == "true"
    columns = {
        Column("plan"): targets["plan_id"].astype(str).tolist(),
        Column("k", True): targets["k"].astype(str).tolist(),
        Column("multiply-adds (G)", True): column(targets["gmacs"]),
        Column("ms per clip", True): column(targets["latency_ms"]),
        Column("loss of validation top-1 (points)", True): column(targets["val_top1_drop"]),
        Column("meets the targets"): ["yes" if value else "no" for value in met],
    }
    rows: list[list[Any]] = [list(cells) for cells in zip(*columns.values(), strict=True)]
    caption = (
        "The depths that were tried to meet the targets, on validation clips; the search ends at the first that does."
    )
    strong = frozenset(place for place, value in enumerate(met) if value)
    return Folded(
        f"Search for the targets: {'met' if met.any() else 'not met'}", [Table(list(columns), rows, caption, strong)]
    )
