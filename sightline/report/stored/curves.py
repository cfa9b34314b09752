"""Training curves, and which epoch a run keeps."""

from __future__ import annotations

import pandas as pd

from sightline.report.stored.run_results import RunResults

CURVE_KEYS = ("epoch", "step")


def read_curves(run: RunResults) -> pd.DataFrame | None:
    """Return one row per epoch, numbered from 1: the mean of what was logged in it.

    Earlier versions counted epochs from 0, in ``metrics.csv``, with one more file for each time that the fit was
    resumed.
    """
    earlier = [run.table(name, CURVE_KEYS, "fit") for name in [*run.names("metrics-part*"), "metrics"]]
    parts = [part.assign(epoch=part["epoch"] + 1) for part in earlier if part is not None]
    curves = run.table(run.paths.curves.stem, CURVE_KEYS, "fit")
    found = [part.groupby("epoch").mean(numeric_only=True) for part in (*parts, curves) if part is not None]
    if not found:
        return None
    joined = pd.concat(found)
    # An epoch that an interruption cut short was trained again.
    joined = joined[~joined.index.duplicated(keep="last")].sort_index()
    joined.index = joined.index.astype(int)
    return joined


def best_epoch(run: RunResults, curves: pd.DataFrame) -> int | None:
    """Return which epoch's weights are the run's, as its checkpoint chooses them; None where that was not logged."""
    monitor = monitor_of(run)
    if monitor not in curves or curves[monitor].isna().all():
        return None
    values = curves[monitor].dropna()
    lower = run.setting("checkpoint", "mode") == "min"
    return int(values.index[int(values.argmin() if lower else values.argmax())])


def monitor_of(run: RunResults) -> str:
    """Return what the run's checkpoint chooses its best epoch by."""
    return run.setting("checkpoint", "monitor") or "val/top1"
