"""Whether the highest places of a map are the target's, in space and in time, and as a segmentation.

- **Rank accuracy** (Arras, Osman and Samek, "CLEVR-XAI", 2022, section 3.3, "relevance rank accuracy"): of the K
  highest places of a map the share that lies in the target, K the target's size. Of equal places at the limit, an equal
  share of each counts.
- **Energy**: `sightline.explain.metrics.pointing.mass_inside` of the values above 0 (their "relevance mass accuracy").
- **Segmentation** as IA-RED² measures it (Pan et al., 2021, section 4.1): pixel accuracy, mean class accuracy and mean
  IoU of the places above the map's mean, against a mask of objects; classes are object and background. The paper names
  no threshold; the mean is ours. Scores are of each clip and its mean is taken, so that clips can be compared in pairs;
  benchmarks of segmentation count the pixels of all pictures together.

A uniform map has the target's share of the places as rank accuracy and energy: the chance that others have to beat. As
a segmentation it finds nothing, which is right of most pixels of a small object: chance is there what as many places,
drawn at random, would get.

Shapes: B clips, K targets, L places (pixels of a clip, or its frames).
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 1e-9
"""How far, relatively, the mean of equal values may be from these."""


def rank_accuracy(maps: Tensor, marked: Tensor) -> Tensor:
    """Return the share of each map's highest places that is marked.

    Args:
        maps: (B, L).
        marked: bool (B, K, L).

    Returns:
        float64 (B, K); NaN where nothing is marked.
    """
    found = []
    for own, of_clip in zip(maps.double(), marked, strict=True):
        ordered = own.sort(descending=True).values
        row = []
        for target in of_clip:
            size = int(target.sum())
            if not size:
                row.append(own.new_full((), float("nan")))
                continue
            limit = ordered[size - 1]
            above, equal = own > limit, own == limit
            part = (size - above.sum()) / equal.sum()
            row.append((above[target].sum() + part * equal[target].sum()) / size)
        found.append(torch.stack(row) if row else own.new_zeros(0))
    return torch.stack(found)


def segmentation(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return ``pixel_accuracy``, ``mean_accuracy`` and ``mean_iou`` of maps (B, L) against masks, bool (B, L).

    Returns:
        float64 (B,) each; NaN where a clip's mask is empty or full, and there are no two classes.
    """
    found = _above_mean(maps)
    return _agreement((found & masks).sum(dim=1), found.sum(dim=1), masks)


def segmentation_chance(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return what `segmentation` would give on average if as many places were drawn at random."""
    size = _above_mean(maps).sum(dim=1)
    return _agreement(size * masks.double().mean(dim=1), size, masks)


def _above_mean(maps: Tensor) -> Tensor:
    maps = maps.double()
    mean = maps.mean(dim=1, keepdim=True)
    return maps > mean + _ROUNDING * mean.abs()


def _agreement(both: Tensor, found: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Compare ``found`` places, ``both`` of which the mask has too, with the mask, class by class; all (B,)."""
    both, found, inside = both.double(), found.double(), masks.sum(dim=1).double()
    outside = masks.shape[1] - inside
    wrong = found + inside - 2 * both
    neither = masks.shape[1] - both - wrong
    scores = {
        "pixel_accuracy": (both + neither) / masks.shape[1],
        "mean_accuracy": (both / inside + neither / outside) / 2,
        "mean_iou": (both / (both + wrong) + neither / (neither + wrong)) / 2,
    }
    two = (inside > 0) & (outside > 0)
    return {name: torch.where(two, score, float("nan")) for name, score in scores.items()}
