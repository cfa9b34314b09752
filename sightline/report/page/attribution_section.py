"""The section on attribution methods: which of them is right, beside controls that know nothing of the model."""

from __future__ import annotations

import pandas as pd

from sightline.report.numbers import fixed, interval
from sightline.report.page.blocks import Column, Folded, Missing, Section, Table
from sightline.report.stored.run_results import SPLITS, RunResults
from sightline.report.tables.attribution import COLUMNS
from sightline.report.tables.attribution_layout import CAPTION, cells_of

GOOD_END = {1: "high", -1: "low", 0: ""}


def attribution_section(run: RunResults) -> Section:
    """How right attribution methods are."""
    section = Section(
        "attribution",
        "Which attribution can be trusted?",
        "Attribution methods say which parts of a clip a prediction rests on. Here each is held against what the "
        "prediction does when parts are gone, and against boxes where they are known. A method that is not ahead of "
        "the controls, which know nothing of the model, says nothing of it.",
    )
    for split in SPLITS:
        table = run.table(f"attribution_{split}", COLUMNS, "attribute")
        if table is not None:
            headings, rows = cells_of(table)
            columns = [Column(heading, place > 0) for place, heading in enumerate(headings)]
            clips = fixed(table["clips"].max(), 0)
            section.blocks.append(Table(columns, rows, f"On {clips} {split} clips. {CAPTION}"))
            section.blocks.append(Folded(f"Every metric with its interval, on the {split} clips", [_all(table)]))
    if not section.blocks:
        section.blocks.append(Missing("No attribution was measured yet. Do so with", run.command("attribute")))
    return section


def _all(table: pd.DataFrame) -> Table:
    columns = [
        Column("metric"), Column("good end"), Column("method"), Column("value", True), Column("95 % interval", True),
        Column("chance", True), Column("less chance", True), Column("95 % interval", True), Column("clips", True),
    ]  # fmt: skip
    rows = [
        [
            str(row["metric"]),
            GOOD_END[int(row["better"])],
            f"({row['method']})" if row["control"] else str(row["method"]),
            fixed(row["value"], 3),
            interval(row["low"], row["high"], 3),
            fixed(row["chance"], 3),
            fixed(row["vs_chance"], 3),
            interval(row["vs_chance_low"], row["vs_chance_high"], 3),
            fixed(row["clips"], 0),
        ]
        for row in table.sort_values(["metric", "control"], kind="stable").to_dict("records")
    ]
    return Table(columns, rows, "Controls are in brackets. docs/attribution.md defines the metrics.")
