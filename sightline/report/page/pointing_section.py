"""The section on the pointing game: whether single heads look at what is known to matter."""

from __future__ import annotations

import pandas as pd

from sightline.report.numbers import fixed, interval
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table
from sightline.report.stored.run_results import SPLITS, RunResults

HEADS = (
    "target", "layer", "site", "head", "n", "pointing", "pointing_low", "pointing_high", "uniform_pointing", "share",
    "uniform_share", "temporal", "uniform_temporal",
)  # fmt: skip
SUMMARY = ("target", "site", "measure", "quantity", "value", "low", "high", "heads", "clips", "groups")

SHORT = {
    "relevant deep heads": "relevant deep heads",
    "all other heads": "other heads",
    "difference to all other heads": "difference",
    "uniform map": "uniform map",
    "Spearman's correlation with relevance": "correlation with relevance",
}


def pointing_section(run: RunResults) -> Section:
    """How well the attention of each head finds what is known to matter."""
    section = Section(
        "pointing",
        "Do heads look at what matters?",
        "Where boxes say where hands, faces or objects are, each head's attention is compared with them: how often its "
        "peak lies inside a box (pointing), and what share of it does (share). A uniform map and heads drawn at random "
        "are the controls; beating them shows that attention is not spread evenly, but not that training is the cause.",
    )
    for split in SPLITS:
        section.blocks += _summary(run, split)
        heads = run.table(f"pointing_{split}", HEADS, "explain")
        if heads is not None:
            section.blocks.append(Folded(f"Every head, on the {split} clips", [_heads(heads)]))
    if not section.blocks:
        told = "Attention was not compared with boxes yet. Where the data have boxes, do so with"
        section.blocks.append(Missing(told, run.command("explain")))
    return section


def _summary(run: RunResults, split: str) -> list[Block]:
    summary = run.table(f"pointing_{split}_summary", SUMMARY, "explain")
    if summary is None:
        return []
    columns = [
        Column("target"), Column("site"), Column("measure"), Column("quantity"), Column("value", True),
        Column("95 % interval", True), Column("heads", True), Column("clips", True), Column("groups", True),
    ]  # fmt: skip
    rows = [
        [
            str(row["target"]),
            str(row["site"]),
            str(row["measure"]),
            str(row["quantity"]),
            fixed(row["value"], 2),
            interval(row["low"], row["high"], 2),
            *(fixed(row[name], 0) for name in ("heads", "clips", "groups")),
        ]
        for row in summary.to_dict("records")
    ]
    caption = (
        f"On the {split} clips. Relevant deep heads: of the last layers' heads, the half of higher relevance. The "
        "interval of random heads is where 95 % of equally many heads drawn at random lie; the others are over groups."
    )
    short = _short(summary)
    every = Folded(f"All measures and comparisons, on the {split} clips", [Table(columns, rows, caption)])
    return [short, every] if short.rows else [Table(columns, rows, caption)]


def _short(summary: pd.DataFrame) -> Table:
    """The pointing game alone, a row per target and site."""
    columns = [
        Column("target"),
        Column("site"),
        *(Column(name, True) for name in SHORT.values()),
        Column("clips", True),
    ]
    rows = []
    pointing = summary[(summary["measure"] == "pointing") & summary["quantity"].isin(SHORT)]
    for (target, site), found in pointing.groupby(["target", "site"], sort=False):
        by_name = found.set_index("quantity")
        cells = []
        for name in SHORT:
            row = by_name.loc[name] if name in by_name.index else None
            bounds = "" if row is None or pd.isna(row["low"]) else f" ({interval(row['low'], row['high'], 2)})"
            cells.append("" if row is None else fixed(row["value"], 2) + bounds)
        rows.append([str(target), str(site), *cells, fixed(found["clips"].max(), 0)])
    caption = (
        "How often the peak of a head's map lies inside a box of the target (for action: in a frame of the action), "
        "with 95 % intervals where there are enough subjects. Relevant deep heads: of the last layers' heads, the half "
        "of higher relevance."
    )
    return Table(columns, rows, caption)


def _heads(heads: pd.DataFrame) -> Table:
    columns = [
        Column("target"), Column("head"), Column("clips", True), Column("pointing", True),
        Column("95 % interval", True, "of pointing"), Column("uniform", True, "pointing of a uniform map"),
        Column("share", True), Column("uniform", True, "share of a uniform map"),
        Column("in time", True, "How often the frame with the most attention lies in the action"),
        Column("uniform", True, "in time, of a uniform map"),
    ]  # fmt: skip
    rows = [
        [
            str(row["target"]),
            f"layer {row['layer']} {row['site']} head {row['head']}",
            fixed(row["n"], 0),
            fixed(row["pointing"], 2),
            interval(row["pointing_low"], row["pointing_high"], 2),
            *(fixed(row[name], 2) for name in ("uniform_pointing", "share", "uniform_share")),
            *(fixed(row[name], 2) for name in ("temporal", "uniform_temporal")),
        ]
        for row in heads.to_dict("records")
    ]
    return Table(columns, rows)
