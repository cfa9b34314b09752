"""What the verdict rests on: a run's stored results, read once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sightline.report.stored.clips import read_clips, shared_groups, split_counts
from sightline.report.stored.confusion import confusion
from sightline.report.stored.curves import best_epoch, read_curves
from sightline.report.stored.run_results import RunResults
from sightline.run.csv_table import read_table
from sightline.run.paths import ONE_FRAME, TOKEN_PREDICTIONS

PREDICTED = ("sample_id", "label", "predicted", "group")
STABILITY = ("score", "mode", "k", "same_set", "resampled", "chosen", "share")
GAPS = ("score", "mode", "k", "last_cut", "first_kept", "clear")
RANKED = ("score", "layer", "mean")
RECOVERY = ("full", "pruned", "recovered")
"""The models that a recovery tests."""


def _command(name: str, *options: str) -> str:
    return " ".join(["python train.py", name, *options])


@dataclass(frozen=True)
class Evidence:
    """Results of one run; what there is none of is None or empty.

    Attributes:
        command: Gives the command line that runs a command of `train.py` on the run.
        classes: Class names in the order of the labels.
        test: What the unpruned model predicted on the test clips: label, predicted, group ("" where unknown) and, where
            clips are known one by one, sample_id.
        one_frame: The same where every frame of a clip was its middle one.
        models: The table of tested models, see `sightline.report.tables.pruning`.
        outcomes: What each of them predicted on the test clips, like ``test``, by plan.
        tokens: The table of token reductions, see `sightline.report.tables.tokens`.
        token_outcomes: What the model predicted with each of them, like ``test``, by plan.
        recovery: Of a run that trained a pruned model further: what ``full``, ``pruned`` and ``recovered`` predicted.
        target: The plan that was found to meet the targets on validation clips; "" where none did, None where there
            were none.
        validation: Top-1 of the best epoch on validation clips, in percent.
        training: Top-1 of that epoch on training clips (augmented), in percent.
        validation_labels: Number of validation clips of every class.
        ranked: Layers with their mean score on the training clips: score, layer, mean.
        stability: See `sightline.relevance.unit_tables.stability_table`; of layers on the training clips.
        gaps: See `sightline.relevance.cut_gap`; likewise.
        race: Of the race that the layers' scores come from, what the manifest says; None where they are of all clips.
        shared_groups: Subjects that are in more than one split.
        unreadable: By class, how many of the run's clips could not be read, and how many there are.
        folder: The run's folder, quoted for a shell.
    """

    command: Callable[..., str] = _command
    classes: tuple[str, ...] = ()
    test: pd.DataFrame | None = None
    one_frame: pd.DataFrame | None = None
    models: pd.DataFrame | None = None
    outcomes: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    tokens: pd.DataFrame | None = None
    token_outcomes: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    recovery: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    target: str | None = None
    validation: float | None = None
    training: float | None = None
    validation_labels: tuple[int, ...] = ()
    ranked: pd.DataFrame | None = None
    stability: pd.DataFrame | None = None
    gaps: pd.DataFrame | None = None
    race: Mapping[str, Any] | None = None
    shared_groups: tuple[str, ...] = ()
    unreadable: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    folder: str = "<run>"

    def class_name(self, label: int) -> str:
        """Return what a class is called."""
        return self.classes[label] if label < len(self.classes) else f"class {label}"


def read_evidence(run: RunResults) -> Evidence:
    """Read what the verdict rests on."""
    models = run.pruning()
    models = None if models is None or models.empty else models
    tokens = run.tokens()
    curves, best = read_curves(run), None
    if curves is not None:
        best = best_epoch(run, curves)
    counts = split_counts(run)
    held_out = () if counts is None else counts.loc[counts["split"] == "val", "clips"]
    return Evidence(
        command=run.command,
        classes=tuple(run.class_names() or ()),
        test=_test(run),
        one_frame=_predictions(run, ONE_FRAME),
        models=models,
        outcomes=_outcomes(run, models),
        tokens=tokens,
        token_outcomes=_outcomes(run, tokens, f"{TOKEN_PREDICTIONS}/"),
        recovery=_recovery(run),
        target=_target(run),
        validation=_percent(curves, best, "val/top1"),
        training=_percent(curves, best, "train/top1"),
        validation_labels=tuple(int(count) for count in held_out),
        ranked=run.table("relevance_train_layers", RANKED, "ablate"),
        stability=run.table("stability_train_layers", STABILITY, "ablate"),
        gaps=run.table("cut_gaps_train_layers", GAPS, "ablate"),
        race=run.manifest("train").get("layers", {}).get("race") if "train" in run.scored_splits() else None,
        shared_groups=tuple(shared_groups(run)),
        unreadable=_unreadable(run),
        folder=shlex.quote(str(run.folder)),
    )


def _predictions(run: RunResults, model: str) -> pd.DataFrame | None:
    """Read what a model predicted, in the order of the clips' names; None where it is not known clip by clip."""
    path = run.paths.predictions(model)
    if not path.is_file():
        return None
    found = read_table(path, dtype={"sample_id": str, "group": str}, keep_default_na=False)
    return found[list(PREDICTED)] if set(PREDICTED) <= set(found.columns) and len(found) else None


def _outcomes(run: RunResults, table: pd.DataFrame | None, folder: str = "") -> dict[str, pd.DataFrame]:
    """Read what the models of a table predicted, by plan, where it is known clip by clip."""
    plans = [] if table is None else list(dict.fromkeys(table["plan_id"]))
    return {plan: found for plan in plans if (found := _predictions(run, folder + plan)) is not None}


def _test(run: RunResults) -> pd.DataFrame | None:
    if "recovered" in (recovery := _recovery(run)):
        return recovery["recovered"]  # the model that this run trained
    found = run.predictions()
    if found is not None and set(PREDICTED) <= set(found.columns):
        return None if found.empty else found[list(PREDICTED)].astype({"group": str}).replace({"group": {"nan": ""}})
    counted = confusion(run)
    if counted is None or not counted[1].sum():
        return None
    pairs = [(i, j) for (i, j), n in np.ndenumerate(counted[1]) for _ in range(n)]
    return pd.DataFrame(pairs, columns=["label", "predicted"]).assign(group="")


def _recovery(run: RunResults) -> dict[str, pd.DataFrame]:
    if not run.paths.table("recovery").is_file():
        return {}
    found = {name: _predictions(run, name) for name in RECOVERY}
    known = {name: predictions for name, predictions in found.items() if predictions is not None}
    return known if len(known) == len(RECOVERY) else {}


def _percent(curves: pd.DataFrame | None, best: int | None, name: str) -> float | None:
    if curves is None or name not in curves:
        return None
    place: Any = curves[name].last_valid_index() if best is None else best
    value: Any = None if place is None else curves[name].loc[place]
    return None if value is None or pd.isna(value) else 100 * float(value)


def _target(run: RunResults) -> str | None:
    """Return the plan that met the targets, "" where none did, None where there were none."""
    trials = run.table("targets", ("plan_id", "meets"), "prune")
    if trials is None:
        return None
    met = trials.loc[trials["meets"].astype(str).str.lower() == "true", "plan_id"].tolist()
    return str(met[-1]) if met else ""


def _unreadable(run: RunResults) -> dict[str, tuple[int, int]]:
    clips = read_clips(run)
    tables = [run.table(name, ("sample_id",), "fit") for name in run.names("unreadable*")]
    lost = {str(name) for table in tables if table is not None for name in table["sample_id"]}
    if clips is None or not lost:
        return {}
    missing = clips["sample_id"].isin(lost)
    grouped = missing.groupby(clips["label"], sort=False)
    return {str(name): (int(found.sum()), len(found)) for name, found in grouped}
