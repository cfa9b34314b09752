"""Rows about the samples of a split, computed by several processes, each sample by exactly one of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from sightline.run.ranks import Ranks


def shared_rows(
    parts: Path,
    sample_ids: Sequence[str],
    work: Callable[[list[int]], pd.DataFrame],
    types: Mapping[str, type],
    ranks: Ranks | None = None,
) -> pd.DataFrame | None:
    """Compute rows of a whole split.

    Args:
        parts: A folder for what each process has computed; deleted afterwards.
        sample_ids: Names of all samples of the split.
        work: Computes the rows (with a column ``sample_id``) of the samples at these places.
        types: Type of every column.
        ranks: The processes that share the work.

    Returns:
        The rows in the order of ``sample_ids`` on rank 0, None elsewhere.
    """
    ranks = ranks or Ranks()

    def empty() -> None:
        shutil.rmtree(parts, ignore_errors=True)  # what an interrupted run left, maybe of other weights
        parts.mkdir(parents=True)

    def compute() -> None:
        mine = list(range(len(sample_ids)))[ranks.rank :: ranks.world]
        work(mine).to_csv(parts / f"{ranks.rank}.csv", index=False)

    def join() -> pd.DataFrame:
        # Names stay what they are, also where they look like numbers.
        frames = [
            pd.read_csv(parts / f"{rank}.csv", dtype=dict(types), keep_default_na=False, float_precision="round_trip")
            for rank in range(ranks.world)
        ]
        order = {name: place for place, name in enumerate(sample_ids)}
        shutil.rmtree(parts)
        return pd.concat(frames).sort_values("sample_id", key=lambda names: names.map(order), ignore_index=True)

    ranks.together(empty, only_first=True)
    ranks.together(compute)
    return ranks.together(join, only_first=True)
