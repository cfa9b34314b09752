"""The section on specialised heads: which head of the last layers each class relies on."""

from __future__ import annotations

import pandas as pd

from sightline.report.numbers import decimals_for, fixed, interval
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table
from sightline.report.page.relevance_section import SPLIT_NAMES
from sightline.report.stored.run_results import SPLITS, RunResults

SPECIALISED = (
    "score", "site", "class", "n", "layer", "head", "mean", "margin", "margin_low", "margin_high", "picked",
)  # fmt: skip
SHARED = ("score", "site", "layer", "head", "classes", "names")


def heads_section(run: RunResults) -> Section:
    """The head of the last layers that each class relies on most."""
    section = Section(
        "heads",
        "Specialised heads",
        "For every class the head of the last layers whose removal changes the predictions of its clips most. The "
        "margin is its lead over the second; ‘chosen again’ is the share of resampled data sets that pick the same "
        "head. A small margin or share means that several heads serve the class equally well.",
    )
    found = {name.removeprefix("specialised_heads_"): name for name in run.names("specialised_heads_*")}
    for split, name in sorted(found.items(), key=lambda pair: (*SPLITS, pair[0]).index(pair[0])):
        table = run.table(name, SPECIALISED, "ablate")
        if table is None:
            continue
        blocks: list[Block] = [
            _specialised(rows, f"By {score} on the {SPLIT_NAMES.get(split, split)}.")
            for score, rows in table.groupby("score", sort=False)
        ]
        blocks += _shared(run, split)
        section.blocks += blocks if split == "train" else [Folded(f"On the {SPLIT_NAMES.get(split, split)}", blocks)]
    if not section.blocks:
        section.blocks.append(Missing("No heads were chosen yet. They are chosen by", run.command("ablate")))
    return section


def _specialised(rows: pd.DataFrame, caption: str) -> Table:
    decimals = max(decimals_for(rows["mean"]), decimals_for(rows["margin"].dropna()))
    several = rows["site"].nunique() > 1
    columns = [
        Column("class"), *([Column("site")] if several else []), Column("layer", True), Column("head", True),
        Column("mean", True), Column("margin", True), Column("95 % interval", True, "of the margin"),
        Column("chosen again %", True), Column("clips", True),
    ]  # fmt: skip
    cells = [
        [
            str(row["class"]),
            *([str(row["site"])] if several else []),
            fixed(row["layer"], 0),
            fixed(row["head"], 0),
            fixed(row["mean"], decimals),
            fixed(row["margin"], decimals),
            interval(row["margin_low"], row["margin_high"], decimals),
            fixed(100 * row["picked"], 0),
            fixed(row["n"], 0),
        ]
        for row in rows.to_dict("records")
    ]
    return Table(columns, cells, caption)


def _shared(run: RunResults, split: str) -> list[Block]:
    table = run.table(f"shared_heads_{split}", SHARED, "ablate")
    if table is None or not (table["classes"] > 1).any():
        return []
    rows = [
        [f"layer {row['layer']} {row['site']} head {row['head']}", str(row["classes"]), str(row["names"])]
        for row in table.to_dict("records")
    ]
    columns = [Column("head"), Column("classes", True), Column("which")]
    return [Folded("Classes that share a head", [Table(columns, rows)])]
