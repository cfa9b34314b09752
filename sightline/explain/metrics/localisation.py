"""Whether the highest places of a map are the target's, in space and in time, and as a segmentation.

- **Rank accuracy** (Arras, Osman and Samek, "CLEVR-XAI", 2022, section 3.3, "relevance rank accuracy"): of the K
  highest places of a map the share that lies in the target, K the target's size. Of equal places at the limit, an equal
  share of each counts.
- **Energy**: `sightline.explain.metrics.pointing.mass_inside` of the values above 0 (their "relevance mass accuracy").
- **Segmentation** as IA-RED² measures it (Pan et al., 2021, section 4.1): pixel accuracy, mean class accuracy and mean
  IoU of the places above the map's mean, against a mask of objects. The paper names no threshold; the mean is ours.

A uniform map has the target's share of the places as rank accuracy and energy: the chance that others have to beat.

Shapes: B clips, K targets, L places (pixels of a clip, or its frames).
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    maps = maps.double()
    found = maps > maps.mean(dim=1, keepdim=True)
    both, neither = (found & masks).sum(dim=1), (~found & ~masks).sum(dim=1)
    inside, outside = masks.sum(dim=1), (~masks).sum(dim=1)
    told = (inside > 0) & (outside > 0)
    wrong = masks.shape[1] - both - neither
    accuracy = (both / inside + neither / outside) / 2
    iou = (both / (both + wrong) + neither / (neither + wrong)) / 2
    nothing = torch.full_like(accuracy, float("nan"), dtype=torch.float64)
    return {
        "pixel_accuracy": torch.where(told, (both + neither).double() / masks.shape[1], nothing),
        "mean_accuracy": torch.where(told, accuracy.double(), nothing),
        "mean_iou": torch.where(told, iou.double(), nothing),
    }
