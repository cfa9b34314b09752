"""Which classes the unpruned model took the test clips for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sightline.report.stored.run_results import RunResults
from sightline.run.csv_table import read_table


def confusion(run: RunResults) -> tuple[list[str], NDArray[np.int64], str] | None:
    """Return class names, counts (true x predicted) and the file that they come from.

    The predictions behind the table of tested models go first, so that all accuracies on the page agree.
    """
    names, predictions = run.class_names(), run.predictions()
    if predictions is not None and not predictions.empty:
        known = names or []
        size = max(len(known), int(predictions[["label", "predicted"]].to_numpy().max()) + 1)
        counts = np.zeros((size, size), dtype=np.int64)
        np.add.at(counts, (predictions["label"].to_numpy(), predictions["predicted"].to_numpy()), 1)
        full = [*known, *(f"class {number}" for number in range(len(known), size))]
        return full, counts, str(run.paths.predictions_folder.relative_to(run.folder))
    path = run.paths.table("confusion")
    return _read_counts(run, path) if path.is_file() else None


def _read_counts(run: RunResults, path: Path) -> tuple[list[str], NDArray[np.int64], str]:
    frame = read_table(path, index_col=0, keep_default_na=False)
    names = list(map(str, frame.index))
    if len(names) != frame.shape[1] or not all(pd.api.types.is_integer_dtype(kind) for kind in frame.dtypes):
        raise ValueError(
            f"{path} is not a confusion matrix: expected one row and one column of counts per class. Write it again "
            f"with: {run.command('test')}"
        )
    return names, frame.to_numpy(dtype=np.int64), str(path.relative_to(run.folder))
