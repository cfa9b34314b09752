"""How much two maps of the same clip agree."""

from __future__ import annotations

from torch import Tensor

from sightline.statistics.rank_correlation import spearman


def map_agreement(ours: Tensor, theirs: Tensor) -> float:
    """Return Spearman's rank correlation of two maps (T, H, W) over all pixels; NaN where one of them is flat.

    Ranks, because the weights of two models, families or sites have no common scale.
    """
    return float(spearman(*(pixels.double().flatten().numpy() for pixels in (ours, theirs))))
