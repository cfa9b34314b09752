"""Two models on the same test clips, and differences in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sightline.report.numbers import fixed, signed
from sightline.statistics.paired_change import PairedChange, paired_change


def right(predictions: pd.DataFrame) -> pd.Series:
    """Say of every clip whether it was predicted correctly, 1 or 0, by its name where it has one."""
    names = pd.Index(predictions.get("sample_id", predictions.index))
    return pd.Series((predictions["label"] == predictions["predicted"]).to_numpy(dtype=float), index=names)


def compared(after: list[pd.DataFrame], before: list[pd.DataFrame]) -> PairedChange | None:
    """Take the change of top-1 from one model to another on the clips of both, as a share.

    Several models on a side, e.g. random draws, are averaged clip by clip. None where they share no clip.
    """
    mean_after, mean_before = (pd.concat(list(map(right, side)), axis=1).mean(axis=1) for side in (after, before))
    both = pd.concat([mean_after, mean_before], axis=1, join="inner").dropna()
    if both.empty:
        return None
    subject = after[0].set_index("sample_id")["group"].reindex(both.index).fillna("")
    return paired_change((both[0] - both[1]).to_numpy(), subject.to_numpy())


def against_answer(predictions: pd.DataFrame, answer: int) -> PairedChange:
    """Compare a model with giving one and the same answer to every clip."""
    constant = (predictions["label"] == answer).to_numpy(dtype=float)
    group = predictions["group"].to_numpy(dtype=object) if "group" in predictions else np.full(len(predictions), "")
    return paired_change(right(predictions).to_numpy() - constant, group)


def top1(predictions: pd.DataFrame) -> float:
    """Return the share of clips that is right, in percent."""
    return 100 * float(right(predictions).mean())


def points(found: PairedChange) -> str:
    """Write a difference in points with its interval, e.g. "+2.2 points (95 %: −0.4 to +4.8)"."""
    ends = f"{signed(100 * found.low, 1)} to {signed(100 * found.high, 1)}"
    return f"{signed(100 * found.change, 1)} points (95 %: {ends})"


def based_on(found: PairedChange) -> str:
    """Say which clips and subjects a difference rests on."""
    clips = f"{fixed(found.clips, 0)} test clips"
    return f"{clips} of {found.subjects} subjects" if found.subjects else clips


def listed(words: list[str], most: int = 4) -> str:
    """Join words as in a sentence; of many the first."""
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
