"""Sections on the run itself: its data, its training, its test, the clips that could not be read."""

from __future__ import annotations

import pandas as pd

from sightline.report.numbers import fixed
from sightline.report.page.blocks import Block, Column, Missing, Section, Table, Text, chart
from sightline.report.page.charts import epoch_curves
from sightline.report.stored.clips import groups_per_split, shared_groups, split_counts
from sightline.report.stored.curves import best_epoch, monitor_of, read_curves
from sightline.report.stored.run_results import RunResults

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


def _about_best_epoch(run: RunResults, curves: pd.DataFrame) -> str:
    epoch, monitor = best_epoch(run, curves), monitor_of(run)
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
