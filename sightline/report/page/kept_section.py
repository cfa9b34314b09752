"""The section on token reduction: what was kept of some clips, and how much of what matters lies in it."""

from __future__ import annotations

import pandas as pd

from sightline.report.numbers import fixed
from sightline.report.page.blocks import Block, Column, Folded, Missing, Section, Table
from sightline.report.page.gallery_section import KEPT, Embedding, gallery_blocks, gallery_files, read_captions
from sightline.report.stored.run_results import SPLITS, RunResults

COLUMNS = (
    "sample_id", "tokens", "class", "predicted", "predicted_all", "kept_pct", "trajectory_sum", "trajectory_random",
    "trajectory_all", "place", "grid", "tokens_pct", "cells_pct", "gradnorm_pct",
)  # fmt: skip

_MOST_ROWS = 12


def kept_section(run: RunResults, embedding: Embedding) -> Section:
    """Which tokens reductions keep of some clips."""
    section = Section(
        "kept",
        "Which tokens are kept",
        "Models that go on with fewer tokens, clip by clip: the frames, how much the loss of the right class depends "
        "on each place (GradNorm), and what is left after each place at which tokens are dropped.",
    )
    for split in SPLITS:
        table = run.table(f"kept_tokens_{split}", COLUMNS, "explain")
        if table is not None:
            section.blocks += _tables(table, split)
    captions = read_captions(run.paths.captions)
    files = [path for path in gallery_files(run.paths.attention, captions) if path.stem.endswith(KEPT)]
    if files:
        section.blocks += gallery_blocks(files, run.paths.attention, captions, embedding)
    if not section.blocks:
        command = run.command("explain", "--tokens", "random", "--tokens.kept", "0.5")
        section.blocks.append(Missing("No token reduction was drawn yet. Draw one, for example, with", command))
    return section


def _tables(table: pd.DataFrame, split: str) -> list[Block]:
    clips = table.drop_duplicates(["tokens", "sample_id"])
    same = clips.assign(same=100 * (clips["predicted"] == clips["predicted_all"]))
    means = ["kept_pct", "same", "trajectory_sum", "trajectory_random", "trajectory_all"]
    methods = [
        [
            str(name),
            fixed(len(own), 0),
            *(fixed(own[mean].mean(), 0 if place < 2 else 2) for place, mean in enumerate(means)),
        ]
        for name, own in same.groupby("tokens", sort=False)
    ]
    shown = clips["sample_id"].nunique()
    about_methods = Table(
        [
            Column("tokens"), Column("clips", True), Column("kept %", True, "of all tokens, mean over layers"),
            Column("same answer %", True, "clips that get the class that they get with all tokens"),
            Column("trajectory sum", True), Column("at random", True, "as many tokens at the same places, at random"),
            Column("all tokens", True),
        ],
        methods,
        f"On {shown} {split} clip{'s' * (shown > 1)}. Trajectory sum: how much of the last frame was to be seen "
        "in the frames before, at most their number; the lower, the less is said twice. It falls with the number of "
        "tokens, so compare with as many at random.",
    )  # fmt: skip
    by_place = table.groupby(["tokens", "place", "grid"], sort=False)
    places = [
        [str(name), str(place), str(grid), *(fixed(own[mean].mean(), 1) for mean in (
            "tokens_pct", "cells_pct", "gradnorm_pct", "cells_pct",
        ))]
        for (name, place, grid), own in by_place
    ]  # fmt: skip
    about_places = Table(
        [
            Column("tokens"), Column("place"), Column("grid", hint="frames x rows x columns"),
            Column("tokens %", True, "of the grid's cells"),
            Column("cells %", True, "that are part of some token; more than tokens where some were merged"),
            Column("GradNorm %", True, "of the whole map's sum that lies in these cells"),
            Column("at random", True, "what as many cells drawn at random hold on average"),
        ],
        places,
        "What is left after each place. More GradNorm than at random: what was dropped matters less than the rest.",
    )  # fmt: skip
    if len(places) > _MOST_ROWS:
        return [about_methods, Folded(f"After each place, on the {split} clips", [about_places])]
    return [about_methods, about_places]
