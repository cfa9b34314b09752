"""Score tables for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def score_table(values: np.ndarray, group: Sequence[str] | None = None, label: Sequence[int] | None = None):
    """A layer table with the scores r = ``values`` (U, N); where a value is not a number there is no row."""
    u, n = values.shape
    frame = pd.DataFrame(
        {
            "sample_id": np.tile([f"clip{i}" for i in range(n)], u),
            "label": np.tile(np.zeros(n, int) if label is None else np.asarray(label), u),
            "group": np.tile(np.array(["s0"] * n if group is None else group, dtype=object), u),
            "layer": np.repeat(np.arange(u), n),
            "site": None,
            "head": np.nan,
            "r": values.reshape(-1),
            "jsd": values.reshape(-1) / 2,
            "dprob": values.reshape(-1) * 1.5,
        }
    )
    # A table on disk runs sample by sample.
    frame["_sample"] = np.tile(np.arange(n), u)
    frame = frame.sort_values(["_sample", "layer"], kind="stable", ignore_index=True).drop(columns="_sample")
    return frame[frame["r"].notna()].reset_index(drop=True)
