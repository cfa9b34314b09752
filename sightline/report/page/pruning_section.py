"""The section on pruned models: accuracy and cost of each, and which depth meets the targets."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sightline.report.figures.pruning_curves import backbone_curves
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table, Text, chart
from sightline.report.page.charts import accuracy_curves
from sightline.report.page.numbers import column, fixed, interval, signed
from sightline.report.page.run_results import RunResults
from sightline.report.tables.pruning import RELEVANCE_SCORES, reference_rows
from sightline.report.tables.pruning_layout import plan_label, removed_units, timing_marks, timing_notes

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
        section.blocks += _charts(frame, _majority(run))
        section.blocks.append(_table(frame))
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


def _table(frame: pd.DataFrame) -> Table:
    scores = {score for score in frame["score"] if score in RELEVANCE_SCORES}
    params, params_unit = _scaled(frame["params"])
    macs, macs_unit = _scaled(frame["macs"])
    marks = timing_marks(frame)
    columns = {
        Column("plan"): [plan_label(row, len(scores) > 1) for row in frame.itertuples(index=False)],
        Column("removes"): ["" if mode == "none" else mode for mode in frame["mode"]],
        Column("k", True): [str(k) for k in frame["k"]],
        Column("removed layers"): [removed_units(row) for row in frame.itertuples(index=False)],
        Column("top‑1 %", True): [fixed(value, 1) for value in frame["top1"]],
        Column("95 % interval", True): _intervals(frame),
        Column("mean class %", True, "Mean over classes of the share that is right"): [
            fixed(value, 1) for value in frame["mean_class_acc"]
        ],
        Column(f"parameters ({params_unit})", True): params,
        Column("change %", True, "of the parameters"): _changes(frame, "params_change_pct"),
        Column(f"multiply-adds ({macs_unit})", True): macs,
        Column("change %", True, "of the multiply-adds"): _changes(frame, "macs_change_pct"),
        Column("tokens kept %", True, "of all tokens, mean over layers and clips"): [
            fixed(value, 1) for value in frame["tokens_kept_pct"]
        ],
        Column("ms per clip", True, "at batch 1; in brackets the interquartile range of the repeats"): _spread(
            frame, "latency_ms_b1", "latency_iqr_ms_b1"
        ),
        Column(_throughput(frame), True, "in brackets the interquartile range of the repeats"): _spread(
            frame, "clips_per_s", "clips_per_s_iqr"
        ),
        Column("timed", False, "in which measurement"): [marks.get(run, "") for run in frame["timing_run"]],
        Column("folder in pruned/"): ["" if row.mode == "none" else row.plan_id for row in frame.itertuples()],
    }
    shown = {"tokens kept %": frame["tokens_kept_pct"].notna().any(), "timed": bool(marks)}
    columns = {column: cells for column, cells in columns.items() if shown.get(column.title, True)}
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    strong = frozenset(place for place, reference in enumerate(reference_rows(frame)) if reference)
    caption = (
        "Every tested model, on the test clips. Intervals (Wilson) assume that clips are independent, so where many "
        "clips show the same driver they are too narrow. Milliseconds and clips per second were measured on the "
        "machine that ran the command."
    )
    caption = " ".join(part for part in (caption, *timing_notes(frame)) if part)
    return Table(list(columns), rows, caption, strong)


def _intervals(frame: pd.DataFrame) -> list[str]:
    return [interval(low, high, 1) for low, high in zip(frame["top1_low"], frame["top1_high"], strict=True)]


def _spread(frame: pd.DataFrame, name: str, iqr: str) -> list[str]:
    """Write a column of medians, each with the interquartile range of its repeats where it is known."""
    pairs = zip(frame[name], frame[iqr], strict=True)
    return [fixed(value, 1) + ("" if pd.isna(spread) else f" ({spread:.1f})") for value, spread in pairs]


def _changes(frame: pd.DataFrame, name: str) -> list[str]:
    """Write a column of changes; the unpruned model, which they are measured against, has none."""
    pairs = zip(reference_rows(frame), frame[name], strict=True)
    return ["" if reference else signed(value, 1) for reference, value in pairs]


def _throughput(frame: pd.DataFrame) -> str:
    batches = frame["batch"].dropna().unique().tolist()
    return f"clips/s at batch {int(batches[0])}" if len(batches) == 1 else "clips/s"


def _scaled(values: pd.Series) -> tuple[list[str], str]:
    """Write large counts in one unit, chosen by the largest."""
    largest = float(values.astype("float64").max())
    scale, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= s), (1.0, "count"))
    digits = 2 if largest / scale < 100 else 1
    return [fixed(value if pd.isna(value) else float(value) / scale, digits) for value in values], unit


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
