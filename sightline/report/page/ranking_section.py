"""The section on the ranking of layers and heads: their means, and how sure the sets are that would be cut."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sightline.relevance.cut_gap import TIMES_NOISE_FLOOR
from sightline.report.numbers import NONE, column, decimals_for, fixed, interval, short
from sightline.report.page.blocks import Block, Column, Folded, Heading, Missing, Section, Table, Text
from sightline.report.page.relevance_section import ONE, SPLIT_NAMES
from sightline.report.stored.run_results import SPLITS, RunResults
from sightline.report.tables.unit_statistics import SCORE_NAMES
from sightline.statistics.bootstrap import RESAMPLES

SHOWN = 5
"""So many units are shown from either end of a long ranking; the whole is folded."""
STATISTICS = ("score", "layer", "site", "head", "n", "mean", "median", "mean_low", "mean_high")
STABILITY = ("score", "mode", "k", "same_set", "resampled", "layer", "site", "head", "chosen", "share")
GAPS = ("score", "mode", "k", "gap", "noise_floor", "clear")


def ranking_section(run: RunResults) -> Section:
    """The units from the least to the most relevant, and how sure the sets to cut are."""
    section = Section(
        "ranking",
        "Ranking and its certainty",
        "Pruning removes the units of lowest mean relevance on the training clips. Two questions decide how far to "
        "trust such a choice: would other clips or drivers have given the same set (stability), and is the gap "
        "between the last unit cut and the first one kept more than rounding (noise floor)?",
    )
    for split in SPLITS:
        for kind in ("layers", "heads"):
            statistics = run.table(f"relevance_{split}_{kind}", STATISTICS, "ablate")
            if statistics is None:
                continue
            for score, rows in statistics.groupby("score", sort=False):
                title = f"{kind.capitalize()} on the {SPLIT_NAMES[split]}"
                title += "" if score == "r" else f", by {SCORE_NAMES.get(str(score), str(score))}"
                blocks = [*_ranking(rows, kind), *_certainty(run, split, kind, str(score))]
                first = split == "train" and score == "r"
                section.blocks += [Heading(title), *blocks] if first else [Folded(title, blocks)]
    if not section.blocks:
        section.blocks.append(Missing("There is no ranking yet. It is made by", run.command("ablate")))
    return section


def _ranking(statistics: pd.DataFrame, kind: str) -> list[Block]:
    # A race ranks by place: means of units that saw different clips cannot be compared.
    by = "place" if "place" in statistics and statistics["place"].notna().all() else "mean"
    ranked = statistics.sort_values([by, "layer"], kind="stable")
    decimals = decimals_for(ranked["mean"])
    table = {
        Column("rank", True): [str(place + 1) for place in range(len(ranked))],
        Column(ONE[kind]): [_name(unit) for unit in ranked.itertuples(index=False)],
        Column("mean", True): [fixed(mean, decimals) for mean in ranked["mean"]],
        Column("95 % interval", True, "Of the mean; what other groups, such as drivers, would give"): [
            interval(low, high, decimals) for low, high in zip(ranked["mean_low"], ranked["mean_high"], strict=True)
        ],
        Column("median", True): column(ranked["median"]),
        Column("clips", True): [fixed(n, 0) for n in ranked["n"]],
    }
    note = ""
    if ranked["mean_low"].isna().all():
        table = {heading: cells for heading, cells in table.items() if heading.title != "95 % interval"}
        note = " No intervals: they need at least eight groups, such as drivers."
    columns, rows = list(table), [list(cells) for cells in zip(*table.values(), strict=True)]
    if len(rows) <= 3 * SHOWN:
        return [Table(columns, rows, f"All {len(rows)} {kind}, the least relevant first.{note}")]
    return [
        Table(columns, rows[:SHOWN], f"The {SHOWN} least relevant of {len(rows)} {kind}.{note}"),
        Table(columns, rows[-SHOWN:], f"The {SHOWN} most relevant."),
        Folded(f"All {len(rows)} {kind}", [Table(columns, rows)]),
    ]


def _certainty(run: RunResults, split: str, kind: str, score: str) -> list[Block]:
    """One row per set that could be cut: how stable it is, and the gap at its edge."""
    stability = _of_score(run.table(f"stability_{split}_{kind}", STABILITY, "ablate"), score)
    if stability is None:
        return [Text("No stability is known: the units were raced, or there are too few to choose from.", note=True)]
    sets = stability[stability["chosen"].astype(bool)].groupby(["mode", "k"], sort=False)
    least = stability.loc[sets["share"].idxmin()]
    table = {
        Column("cut"): least["mode"].astype(str).tolist(),
        Column("k", True): least["k"].astype(str).tolist(),
        Column("same set %", True, "Share of resamples that choose exactly this set"): [
            fixed(100 * share, 0) for share in least["same_set"]
        ],
        Column("least sure member", False, "And the share of resamples that have it in the set"): [
            f"{_short_name(unit)} ({fixed(100 * share, 0)} %)"
            for unit, share in zip(least.itertuples(index=False), least["share"], strict=True)
        ],
    }
    gaps = _of_score(run.table(f"cut_gaps_{split}_{kind}", GAPS, "ablate"), score)
    told = f"The gaps at the edges are not there yet: {run.command('ablate', '--split', split)}"
    if gaps is not None:
        found = {(row.mode, row.k): row for row in gaps.itertuples(index=False)}
        edges = [found.get(place) for place in zip(least["mode"], least["k"], strict=True)]
        table[Column("gap at the edge", True)] = column(
            pd.Series([None if gap is None else gap.gap for gap in edges], dtype="float64")
        )
        table[Column("above noise")] = [_verdict(gap) for gap in edges]
        told = (
            f"A gap is clear above {TIMES_NOISE_FLOOR} noise floors; the floor, {_floor(gaps)}, is the largest r of a "
            "clip with nothing switched off."
        )
    table[Column("set")] = [
        ", ".join(_short_name(unit) for unit in units.sort_values(["layer", "head"]).itertuples(index=False))
        for _, units in sets
    ]
    grouped = set(stability["resampled"]) == {"groups"}
    how = "whole groups of them" if grouped else "one by one, as there are too few groups, which is too optimistic"
    caption = (
        f"How certain the sets of k {kind} are. The {SPLIT_NAMES[split]} are resampled {RESAMPLES:,} times ({how}); "
        f"the table shows how often exactly the same set results. {told}"
    )
    return [Table(list(table), [list(cells) for cells in zip(*table.values(), strict=True)], caption)]


def _of_score(table: pd.DataFrame | None, score: str) -> pd.DataFrame | None:
    rows = None if table is None else table[table["score"] == score]
    return None if rows is None or rows.empty else rows


def _name(unit: Any) -> str:
    layer = f"layer {int(unit.layer)}"
    return layer if pd.isna(unit.head) else f"{layer} {unit.site} head {int(unit.head)}"


def _short_name(unit: Any) -> str:
    """Name a layer by its number, and a head as the table of pruned models does, layer:site:head."""
    return str(unit.layer) if pd.isna(unit.head) else f"{unit.layer}:{unit.site}:{int(unit.head)}"


def _floor(gaps: pd.DataFrame) -> str:
    floors = gaps["noise_floor"].dropna()
    return "unknown here" if floors.empty else short(floors.iloc[0], 2)


def _verdict(gap: Any) -> str:
    if gap is None or pd.isna(gap.noise_floor):
        return NONE
    return "clear" if str(gap.clear).lower() == "true" else "not clear: which of the two is removed is arbitrary"
