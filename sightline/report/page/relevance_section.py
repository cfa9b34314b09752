"""The section on relevance: how much every layer and head matters, clip by clip."""

from __future__ import annotations

from sightline.relevance.race_settings import promise_of
from sightline.relevance.table import KINDS, read_scores
from sightline.report.figures.boxplots_interactive import head_boxplot_interactive, layer_boxplot_interactive
from sightline.report.page.blocks import Block, Folded, Missing, Section, Text, chart
from sightline.report.page.charts import translucent
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.unit_statistics import BOX_MEANING

PIXELS_PER_BOX = 9
ONE = {"layers": "layer", "heads": "head"}
SPLIT_NAMES = {"train": "training clips", "val": "validation clips", "test": "test clips"}


def relevance_section(run: RunResults) -> Section:
    """One box per layer and per head."""
    section = Section(
        "relevance",
        "Relevance of layers and heads",
        "Each layer and each attention head is switched off on its own, and the prediction for every clip is compared "
        "with that of the untouched model. Relevance r is the mean of the change of the true class' probability and of "
        "the Jensen-Shannon divergence of the two predictions: 0 means that the unit does not matter for a clip, 1 "
        "that the prediction depends on it entirely.",
    )
    for split in run.scored_splits():
        blocks = _boxes(run, split)
        if split == run.scored_splits()[0]:
            section.blocks += blocks
        else:
            section.blocks.append(Folded(f"On the {SPLIT_NAMES.get(split, split)}", blocks))
    if not section.blocks:
        section.blocks.append(Missing("Nothing was scored yet. Score every head and layer with", run.command("ablate")))
    return section


def _boxes(run: RunResults, split: str) -> list[Block]:
    blocks: list[Block] = []
    draw = {"layers": layer_boxplot_interactive, "heads": head_boxplot_interactive}
    for kind in reversed(KINDS):
        entry = run.manifest(split).get(kind)
        if entry is None:
            command = run.command("ablate", "--split", split)
            blocks.append(
                Missing(f"The {kind} were not scored on the {SPLIT_NAMES.get(split, split)} yet. Do so with", command)
            )
            continue
        scores = read_scores(run.paths.relevance(split).path, kind)
        caption = (
            f"One box per {ONE[kind]}, over {entry['samples']:,} {SPLIT_NAMES.get(split, split)}. {BOX_MEANING}; those "
            f"beyond are dots in {run.paths.figures.name}/ only. Point at a box for its numbers; drag to enlarge a "
            "part, double click to go back."
        )
        if entry.get("race"):
            caption += f" Boxes of a race hold different numbers of clips. {promise_of(entry['race'])}"
        figure = draw[kind](scores, "r")
        for trace in figure.data:
            if trace.type == "box":
                trace.fillcolor = translucent(trace.line.color, 0.25)
        boxes = scores.groupby(["layer", "site", "head"], dropna=False).ngroups
        blocks.append(chart(figure, kind.capitalize(), caption, least_width=boxes * PIXELS_PER_BOX + 70))
        if entry["left_out"]:
            blocks.append(Text(f"{len(entry['left_out'])} clips could not be read and have no scores.", note=True))
    return blocks
