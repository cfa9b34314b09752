"""Sections on the run itself: its data, its training, its test, the clips that could not be read."""

from __future__ import annotations

import pandas as pd

from sightline.report.page.blocks import Block, Column, Missing, Section, Table, Text, chart
from sightline.report.page.charts import epoch_curves
from sightline.report.page.numbers import fixed
from sightline.report.page.run_results import RunResults
from sightline.report.tables.split import clips_per_class
from sightline.run.csv_table import read_table

ACCURACIES = {
    "train/top1": "training top-1",
    "val/top1": "validation top-1",
    "val/mean_class_acc": "validation, mean over classes",
}
LOSSES = {"train/loss": "training", "val/loss": "validation"}


def data_section(run: RunResults) -> Section:
    """What the model was trained, validated and tested on."""
    section = Section(
        "data",
        "Data and split",
        "How many clips of every class train the model, choose its best epoch (val) and test it. A group is what clips "
        "share, such as a driver; no group should be in two splits, or the test is too easy.",
    )
    counts = split_counts(run)
    if counts is None:
        section.blocks.append(Missing("The split was not recorded. It is written at the start of", run.command("fit")))
        return section
    splits = list(dict.fromkeys(counts["split"]))
    clips = counts.pivot_table("clips", "label", "split", aggfunc="sum", sort=False)[splits]
    order = list(dict.fromkeys(counts["label"]))
    columns = [Column("class"), *(Column(split, True) for split in splits), Column("all", True)]
    rows = [[str(name), *(fixed(n, 0) for n in clips.loc[name]), fixed(clips.loc[name].sum(), 0)] for name in order]
    rows.append(["all classes", *(fixed(n, 0) for n in clips.sum()), fixed(clips.to_numpy().sum(), 0)])
    groups = groups_per_split(run, splits)
    if groups is not None:
        rows.append(["groups", *(fixed(n, 0) for n in groups), ""])
    strong = frozenset({len(order)})
    section.blocks.append(Table(columns, rows, "Clips per class and split.", strong))
    shared = shared_groups(run)
    if shared:
        told = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
        section.blocks.append(Text(f"{len(shared)} groups are in more than one split: {told}. The test is too easy."))
    return section


def split_counts(run: RunResults) -> pd.DataFrame | None:
    """Return clips per split and class, counted from ``splits.csv`` where ``tables/split.csv`` is not there."""
    counts = run.table("split", ("split", "label", "clips", "groups"), "fit")
    clips = read_clips(run)
    if counts is None and clips is not None:
        counts = clips_per_class(clips, list(dict.fromkeys(clips["label"])))
    return counts


def groups_per_split(run: RunResults, splits: list[str]) -> list[int] | None:
    """Return how many groups each split has; None where ``splits.csv`` is not there."""
    clips = read_clips(run)
    return None if clips is None else [int(clips.loc[clips["split"] == split, "group"].nunique()) for split in splits]


def shared_groups(run: RunResults) -> list[str]:
    """Name the groups of which several splits have clips."""
    clips = read_clips(run)
    if clips is None:
        return []
    splits = clips[clips["group"] != ""].groupby("group", sort=True)["split"].nunique()
    return [str(group) for group in splits.index[splits > 1]]


def read_clips(run: RunResults) -> pd.DataFrame | None:
    """Read ``splits.csv``: every clip with its class (label), group and split; None where it is not there."""
    path = run.paths.splits
    return read_table(path, dtype=str, keep_default_na=False) if path.is_file() else None


CURVE_KEYS = ("epoch", "step")


def training_section(run: RunResults) -> Section:
    """How loss and accuracy went over the epochs."""
    section = Section(
        "training",
        "Training",
        "Loss and accuracy after every epoch. Where training improves and validation does not, the model memorises "
        "its training clips.",
    )
    curves = read_curves(run)
    if curves is None:
        section.blocks.append(Missing("There are no training curves. They are written by", run.command("fit")))
        return section
    best = _about_best_epoch(run, curves)
    if best:
        section.blocks.append(Text(best))
    for labels, title, axis, percent in (
        (ACCURACIES, "Accuracy", "Accuracy (%)", True),
        (LOSSES, "Loss", "Cross-entropy loss", False),
    ):
        present = {name: label for name, label in labels.items() if name in curves and curves[name].notna().any()}
        if present:
            figure = epoch_curves(curves, present, axis, percent)
            caption = {
                True: "Share of clips whose most probable class is the right one, on training clips (augmented, during "
                "the epoch) and on validation clips (after it).",
                False: "What training minimises; lower is better.",
            }[percent]
            section.blocks.append(chart(figure, title, caption, height=300))
    return section


def read_curves(run: RunResults) -> pd.DataFrame | None:
    """Return one row per epoch, numbered from 1: the mean of what was logged in it.

    Earlier versions counted epochs from 0, in ``metrics.csv``, with one more file for each time that the fit was
    resumed.
    """
    earlier = [run.table(name, CURVE_KEYS, "fit") for name in [*run.names("metrics-part*"), "metrics"]]
    parts = [part.assign(epoch=part["epoch"] + 1) for part in earlier if part is not None]
    curves = run.table(run.paths.curves.stem, CURVE_KEYS, "fit")
    found = [part.groupby("epoch").mean(numeric_only=True) for part in (*parts, curves) if part is not None]
    if not found:
        return None
    joined = pd.concat(found)
    # An epoch that an interruption cut short was trained again.
    joined = joined[~joined.index.duplicated(keep="last")].sort_index()
    joined.index = joined.index.astype(int)
    return joined


def best_epoch(run: RunResults, curves: pd.DataFrame) -> int | None:
    """Return which epoch's weights are the run's, as its checkpoint chooses them; None where that was not logged."""
    monitor = _monitor(run)
    if monitor not in curves or curves[monitor].isna().all():
        return None
    values = curves[monitor].dropna()
    lower = run.setting("checkpoint", "mode") == "min"
    return int(values.index[int(values.argmin() if lower else values.argmax())])


def _monitor(run: RunResults) -> str:
    return run.setting("checkpoint", "monitor") or "val/top1"


def _about_best_epoch(run: RunResults, curves: pd.DataFrame) -> str:
    epoch, monitor = best_epoch(run, curves), _monitor(run)
    if epoch is None:
        return ""
    value = float(curves[monitor].loc[epoch])
    told = f"{ACCURACIES[monitor]} of {100 * value:.1f} %" if monitor in ACCURACIES else f"{monitor} of {value:.4g}"
    return f"Best epoch: {epoch} of {len(curves)}, with a {told}. All results use the weights of that epoch."


def unreadable_section(run: RunResults) -> Section:
    """Clips that could not be decoded."""
    section = Section(
        "unreadable",
        "Unreadable clips",
        "Clips that could not be decoded. Training replaces them by others of their class; ablation and tests leave "
        "them out, so their numbers are of the remaining clips.",
    )
    blocks: list[Block] = []
    for name in run.names("unreadable*"):
        table = run.table(name, ("split", "sample_id", "reason"), name.partition("-")[2] or "fit")
        if table is None:
            continue
        rows = [[str(value) for value in row] for row in table[["split", "sample_id", "reason"]].to_numpy()]
        met = name.partition("-")[2] or "fit"
        blocks.append(Table([Column("split"), Column("clip"), Column("reason")], rows, f"Met by {met}."))
    section.blocks.extend(blocks or [Text("None was met.")])
    return section
