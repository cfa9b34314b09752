"""``compare``: tables and figures over several finished runs, e.g. seeds and backbones, as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sightline.report.comparison.intervals import difference_table
from sightline.report.comparison.markdown import comparison_markdown
from sightline.report.comparison.runs import read_runs
from sightline.report.comparison.tables import (
    accuracy_table,
    averaged_draws,
    method_table,
    removed_layers_table,
    score_table,
)
from sightline.report.figures.pruning import accuracy_against_cost, accuracy_against_depth
from sightline.report.figures.pruning_curves import has_depths
from sightline.report.figures.saving import save_figure
from sightline.report.tables.outcomes import accuracy_by
from sightline.report.tables.pruning import RELEVANCE_SCORES
from sightline.run.atomic import replacing
from sightline.run.csv_table import write_table


def compare_runs(runs: list[str], out: str) -> None:
    """Write the files that `sightline.commands.compare` lists, and print the text.

    Args:
        runs: Folders of finished runs; those of the same backbone are averaged.
        out: Folder to write to.
    """
    found, folder = read_runs(runs), Path(out)
    accuracy = accuracy_table(found)
    tables = {
        "methods": method_table(accuracy),
        "accuracy": accuracy,
        "removed_layers": removed_layers_table(found.models),
        "scores": score_table(found.models),
        "differences": difference_table(found),
        "by_class": accuracy_by(found.outcomes, found.models, "class"),
        "by_subject": accuracy_by(found.outcomes, found.models, "group"),
    }
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv", float_format="%.6g")
    text = comparison_markdown({**tables, "accuracy": accuracy}, list(found.models["run"].unique()))
    with replacing(folder / "comparison.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _draw(found.models, folder)
    print(text)
    print(f"Written to {folder}.")


def _draw(models: pd.DataFrame, folder: Path) -> None:
    """Draw the curves of all methods; of several scores the first, which would else hide each other."""
    used = [score for score in RELEVANCE_SCORES if score in set(models["score"])]
    shown = averaged_draws(models[~models["score"].isin(used[1:])])
    title = "Accuracy and cost of the pruned models" + (f", relevance by {used[0]}" if len(used) > 1 else "")
    drawn = {"accuracy_against_cost": accuracy_against_cost(shown, title)}
    if has_depths(shown):
        drawn["accuracy_against_depth"] = accuracy_against_depth(shown)
    for name, figure in drawn.items():
        save_figure(figure, folder, name)
