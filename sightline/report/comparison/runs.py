"""What several finished runs have in their tables, put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sightline.report.tables.outcomes import read_outcomes
from sightline.report.tables.pruning import UNPRUNED, read_pruning_table
from sightline.run.csv_table import read_table
from sightline.run.paths import RunFolder


@dataclass(frozen=True)
class Runs:
    """The tested models of several runs.

    Attributes:
        models: The rows of every ``tables/pruning.csv``, with a first column ``run``; method and score of unpruned
            models are empty, whatever `prune` ranked by.
        outcomes: What became of every test clip, see `read_outcomes`, with a column ``run``.
    """

    models: pd.DataFrame
    outcomes: pd.DataFrame


def read_runs(folders: Sequence[Path | str]) -> Runs:
    """Read the tables of finished runs; a run's name is what tells its folder from the others.

    Raises:
        FileNotFoundError: If a folder has no tested models.
        ValueError: If a folder is given twice, or runs of one backbone are of different classes.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if not paths:
        raise ValueError("Expected the folder of at least one run, got none.")
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"The run {twice[0]} is given twice; give every run once.")
    models, outcomes = [], []
    classes: dict[str, tuple[str, set[str]]] = {}
    for name, path in zip(_names(paths), paths, strict=True):
        table, clips = _read_run(path)
        for backbone in table["backbone"].unique():
            known = classes.setdefault(backbone, (name, set(clips["class"])))
            if known[1] != set(clips["class"]):
                raise ValueError(
                    f"Runs of one backbone are averaged, but {known[0]} and {name} of {backbone} were tested on "
                    f"different classes, e.g. {min(known[1] ^ set(clips['class']))}. Compare them separately."
                )
        models.append(table.assign(run=name))
        outcomes.append(clips.assign(run=name))
    together = pd.concat(models, ignore_index=True)
    together = together[["run", *(column for column in together if column != "run")]]
    together.loc[together["mode"] == UNPRUNED, ["method", "score"]] = ""
    return Runs(together, pd.concat(outcomes, ignore_index=True))


def _read_run(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    run = RunFolder(folder)
    for needed in (run.pruning_table, run.splits):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{folder} is no run with tested models: it has no {needed.relative_to(folder)}. Make it with "
                "train.py fit, or train.py prune --run of a trained run."
            )
    table = read_pruning_table(run.pruning_table)
    named = read_table(run.splits, dtype=str, keep_default_na=False)
    class_of = dict(zip(named["sample_id"], named["label"], strict=True))
    return table, read_outcomes(table["plan_id"], run.predictions_folder, class_of)


def _names(paths: Sequence[Path]) -> list[str]:
    """Name every run by its path within the folder that holds all of them."""
    if len(paths) == 1:
        return [paths[0].name]
    common = Path(os.path.commonpath(paths))
    return [path.relative_to(common).as_posix() if path != common else path.name for path in paths]
