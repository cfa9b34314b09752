"""What became of every test clip under every tested model: accuracies by class and by subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from sightline.report.tables.pruning import REDUCTION, reference_rows
from sightline.run.csv_table import read_table


def read_outcomes(
    plan_ids: Iterable[str], folder: Path, class_of: Mapping[str, str], command: str = "prune"
) -> pd.DataFrame:
    """Read what every model predicted.

    Args:
        plan_ids: The models.
        folder: Holds ``<plan_id>.csv`` of each, as `prune` writes it to ``tables/predictions``.
        class_of: Name of every clip's class.
        command: The command of ``train.py`` that writes these files.

    Returns:
        plan_id, sample_id, class, group, correct; one row per model and clip.

    Raises:
        FileNotFoundError: If a model's predictions are not there.
    """
    frames = []
    for plan_id in plan_ids:
        path = Path(folder) / f"{plan_id}.csv"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} with the predictions of a tested model is missing. Run train.py {command} again."
            )
        read = read_table(path, dtype={"sample_id": str, "group": str}, keep_default_na=False)
        unknown = read.loc[~read["sample_id"].isin(list(class_of)), "sample_id"]
        if len(unknown):
            raise ValueError(
                f"{path} has clips that the run's split lacks, e.g. {unknown.iloc[0]}. Run train.py {command}."
            )
        frames.append(
            pd.DataFrame(
                {
                    "plan_id": plan_id,
                    "sample_id": read["sample_id"],
                    "class": read["sample_id"].map(class_of),
                    "group": read["group"],
                    "correct": (read["label"] == read["predicted"]).astype(float),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def accuracy_by(outcomes: pd.DataFrame, models: pd.DataFrame, key: Literal["class", "group"]) -> pd.DataFrame:
    """Take every model's accuracy on the clips of every class or subject, and how far it is from the unpruned model's.

    Args:
        outcomes: From `read_outcomes`; with a column ``run`` where there are several runs.
        models: The table of tested models, likewise; one is the reference in every run.
        key: ``class``, or ``group`` for the subjects.

    Returns:
        The columns of ``models`` that name a model, then the class or group, clips, top1 (percent) and change (points
        against the unpruned model of the same run); models and classes in their order.
    """
    run = ["run"] if "run" in models else []
    found = change_by(outcomes, models.loc[reference_rows(models), [*run, "plan_id"]], key)
    names = [*run, "backbone", "plan_id", "method", "score", "mode", "k", "seed", *REDUCTION]
    return models[names].merge(found, on=[*run, "plan_id"], how="inner", validate="1:m")


def change_by(outcomes: pd.DataFrame, reference: pd.DataFrame, key: Literal["class", "group"]) -> pd.DataFrame:
    """Take every model's accuracy on the clips of every class or subject, and how far it is from a reference's.

    Args:
        outcomes: From `read_outcomes`; with a column ``run`` where there are several runs.
        reference: ``plan_id`` (and ``run``) of the reference, one row per run.
        key: ``class``, or ``group`` for the subjects.

    Returns:
        plan_id (and run), then the class or group, clips, top1 (percent) and change (points against the reference).
    """
    run = ["run"] if "run" in reference else []
    grouped = outcomes.groupby([*run, "plan_id", key], sort=False)["correct"]
    found = grouped.agg(clips="count", top1="mean").reset_index()
    found["top1"] *= 100
    base = found.merge(reference, on=[*run, "plan_id"])[[*run, key, "top1"]].rename(columns={"top1": "base"})
    found = found.merge(base, on=[*run, key], how="left", validate="m:1")
    found["change"] = found["top1"] - found.pop("base")
    return found
