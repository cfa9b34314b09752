"""Evidence made by hand: 120 test clips of 3 classes and 12 subjects, and models that are right on some of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sightline.report.tables.pruning import PruningRow, read_pruning_table, write_pruning_table
from sightline.report.verdict.evidence import Evidence

CLIPS = 120
LABELS = [i % 3 for i in range(CLIPS)]
SUBJECTS = [f"s{i // 3 % 12}" for i in range(CLIPS)]


def predicted(
    right: Iterable[int], labels: list[int] = LABELS, subjects: list[str] = SUBJECTS, wrong: int = 1
) -> pd.DataFrame:
    """Predictions that are right on the clips at these places; elsewhere the class ``wrong`` places further."""
    known = set(right)
    shift = [0 if place in known else wrong for place in range(len(labels))]
    return pd.DataFrame(
        {
            "sample_id": [f"clip{place}" for place in range(len(labels))],
            "label": labels,
            "predicted": [(label + by) % 3 for label, by in zip(labels, shift, strict=True)],
            "group": subjects,
        }
    )


def plan(mode: str, k: int, method: str = "relevance", **changes: Any) -> PruningRow:
    """A row of the table of tested models, with its costs alone."""
    values: dict[str, Any] = {
        "backbone": "demo", "plan_id": f"{method}-{mode}-k{k}", "mode": mode, "k": k, "params": 1000 - 100 * k,
        "params_change_pct": -10.0 * k, "macs": 2000 - 100 * k, "macs_change_pct": -5.0 * k,
    }  # fmt: skip
    if k:
        score = "r" if method == "relevance" else "order"
        values |= {
            "method": method,
            "score": score,
            "removed_layers": tuple(range(k)) if mode == "lowest" else tuple(range(6 - k, 6)),
        }
    return PruningRow(**values | changes)


def evidence(tables: Path, full: pd.DataFrame, models: dict[PruningRow, pd.DataFrame], **more: Any) -> Evidence:
    """Evidence of a full model and tested ones."""
    reference = plan("none", 0)
    path = tables / "pruning.csv"
    write_pruning_table([reference, *models], path)
    outcomes = {row.plan_id: predictions for row, predictions in models.items()} | {reference.plan_id: full}
    return Evidence(
        classes=("drowsy", "texting", "steering"), test=full, models=read_pruning_table(path), outcomes=outcomes, **more
    )
