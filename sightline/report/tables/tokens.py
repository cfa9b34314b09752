"""The table of token reductions compared, `tables/tokens.csv`: one row per method, share of kept tokens and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from sightline.report.tables.outcomes import change_by, read_outcomes
from sightline.report.tables.pruning import PruningRow
from sightline.report.verdict.pairs import compared
from sightline.run.csv_table import read_table
from sightline.statistics.paired_change import PairedChange

if TYPE_CHECKING:
    # At run time this would load torch, which reading a table does not need.
    from sightline.export.token_tests import TokenTest

ALL_TOKENS = "all"
"""What the reference is called in the column of methods: the same model with all tokens."""
CONTROL = "random"
"""The method that others are compared with, `sightline.tokens.asked.CONTROL`."""
WAY = ["method", "options", "kept_asked_pct"]
"""The columns that name a comparison; rows that differ only in their seed are draws of one."""
MEASURED = (
    "top1", "top1_low", "top1_high", "mean_class_acc", "params", "macs", "macs_change_pct", "latency_ms_b1",
    "latency_iqr_ms_b1", "clips_per_s", "clips_per_s_iqr", "batch", "timing_waited_pct", "subjects",
)  # fmt: skip
"""Columns that mean what they mean in the table of pruned models."""
_CHANGES = tuple(f"{name}{end}" for name in ("change", "vs_random") for end in ("", "_low", "_high"))
_TEXT = ("backbone", "plan_id", "method", "options", "tokens", "interval_over", "timing_run")
COLUMNS = (
    "backbone", "plan_id", "method", "options", "seed", "kept_asked_pct", "kept_pct", *MEASURED[:4], *_CHANGES,
    *MEASURED[4:9], "clips_per_s_b1", *MEASURED[9:12], "tokens", "subjects", "interval_over", "timing_waited_pct",
    "timing_run",
)  # fmt: skip
"""All columns, in their order.

``method`` and ``options`` name the reduction, ``seed`` the draw of the control, ``kept_asked_pct`` the share of tokens
that was asked for and ``kept_pct`` what is kept, mean over layers and clips; ``tokens`` is the label of the reduction
with its amount. ``change`` is in points of top-1 against all tokens and ``vs_random`` against the control at the same
share (mean of its draws), both paired clip by clip with 95 % intervals. A row without accuracy could not be tested: the
method cannot keep about so few tokens on this model.
"""


def token_table(
    tests: Sequence[TokenTest], rows: Mapping[str, PruningRow], predictions: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Make the table.

    Args:
        tests: What was tested, in order; the first is the reference, with all tokens.
        rows: What was measured, by plan; of tests that could not be made there is nothing.
        predictions: What each model predicted on the test clips, by plan.
    """
    backbone, full = rows[tests[0].plan.plan_id].backbone, predictions[tests[0].plan.plan_id]
    controls = _controls(tests, predictions)
    records = []
    for test in tests:
        plan_id = test.plan.plan_id
        record: dict[str, Any] = {
            "backbone": backbone, "plan_id": plan_id, "options": test.options, "seed": test.seed,
            "method": ALL_TOKENS if test.method is None else test.method.name,
            "kept_asked_pct": 100 * test.kept, "kept_pct": 100 * test.share,
            "tokens": "" if test.tokens is None else test.tokens.label,
        }  # fmt: skip
        if test.reached:
            found, row = predictions[plan_id], rows[plan_id]
            record |= {name: getattr(row, name) for name in (*MEASURED, "interval_over", "timing_run")}
            record["clips_per_s_b1"] = 1000 / row.latency_ms_b1 if row.latency_ms_b1 else None
            if test.method is not None:
                record |= _points("change", compared([found], [full]))
                if test.method.name != CONTROL and controls.get(test.kept):
                    record |= _points("vs_random", compared([found], controls[test.kept]))
        records.append(record)
    return _typed(pd.DataFrame(records, columns=list(COLUMNS)))


def _controls(tests: Sequence[TokenTest], predictions: Mapping[str, pd.DataFrame]) -> dict[float, list[pd.DataFrame]]:
    """Gather what the draws of the control predicted, by share; of several controls the first one's."""
    control = next((test.options for test in tests if test.method is not None and test.method.name == CONTROL), None)
    found: dict[float, list[pd.DataFrame]] = {}
    for test in tests:
        if test.method is not None and test.method.name == CONTROL and test.options == control and test.reached:
            found.setdefault(test.kept, []).append(predictions[test.plan.plan_id])
    return found


def _points(name: str, found: PairedChange | None) -> dict[str, float]:
    if found is None:
        return {}
    return {name: 100 * found.change, f"{name}_low": 100 * found.low, f"{name}_high": 100 * found.high}


def read_token_table(path: Path | str) -> pd.DataFrame:
    """Read the table.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it lacks columns, as tables of other versions do.
    """
    frame = read_table(Path(path), keep_default_na=False, na_values=[""])
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise ValueError(
            f"{path} is not a table of token reductions: it lacks the columns {', '.join(missing)}. "
            "Write it again with `train.py tokens`."
        )
    return _typed(frame[list(COLUMNS)])


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    for name in COLUMNS:
        if name in _TEXT:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
        elif name in ("seed", "params", "macs", "batch", "subjects"):
            frame[name] = pd.to_numeric(frame[name]).astype("Int64")
        else:
            frame[name] = pd.to_numeric(frame[name]).astype("float64")
    return frame


def averaged(frame: pd.DataFrame) -> pd.DataFrame:
    """Average the draws of every method and share; those that could not be tested are left out.

    Returns:
        The columns of the table, ``draws``, and ``low`` and ``high``: of one draw the interval of its top-1, of several
        the lowest and highest.
    """
    records = []
    tested = frame[frame["top1"].notna()]
    for _, same in tested.groupby(WAY, sort=False):
        first: dict[Any, Any] = same.iloc[0].to_dict()
        several = len(same) > 1
        means = {
            name: same[name].astype("float64").mean() if same[name].notna().any() else float("nan")
            for name in COLUMNS
            if name not in (*_TEXT, "seed")
        }
        low, high = (same["top1"].min(), same["top1"].max()) if several else (first["top1_low"], first["top1_high"])
        records.append(first | means | {"low": low, "high": high, "draws": len(same)})
    return pd.DataFrame(records, columns=[*COLUMNS, "low", "high", "draws"])


def tokens_by(
    frame: pd.DataFrame, predictions: Path, class_of: Mapping[str, str], key: Literal["class", "group"]
) -> pd.DataFrame:
    """Take every tested row's accuracy on the clips of every class or subject, and how far it is from all tokens'.

    Args:
        frame: The table.
        predictions: The folder of what the models predicted.
        class_of: Name of every clip's class.
        key: ``class``, or ``group`` for the subjects.
    """
    tested = frame[frame["top1"].notna()]
    outcomes = read_outcomes(tested["plan_id"].unique(), predictions, class_of, "tokens")
    reference = tested.loc[tested["method"] == ALL_TOKENS, ["plan_id"]]
    names = ["backbone", "plan_id", "method", "options", "seed", "kept_asked_pct", "kept_pct", "tokens"]
    return tested[names].merge(change_by(outcomes, reference, key), on="plan_id", how="inner")
