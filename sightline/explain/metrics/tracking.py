"""Whether a map follows its target from frame to frame.

A map that is right on the whole can rest on one or two frames. So of every frame in which the target is to be seen:

- **On target**: whether the frame's own peak lies in the target's box; equal peaks share it.
- **Drift**: how far the peak is from the middle of the box, in parts of the frame's diagonal; of equal peaks the mean.
- **Strongest two**: the share of the map's sum that lies in its two strongest frames; 2 / T where all are alike.

A uniform map gives chance: the box's share of the frame, and the mean distance of a pixel from its middle.

Shapes: B clips, T frames, (H, W) pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Places that differ by less, relatively, tie; see `sightline.explain.metrics.pointing`.
_TIE = 1e-6


@dataclass(frozen=True)
class Tracking:
    """How one clip's map follows a target, means over the frames in which it is to be seen.

    Attributes:
        on_target: From 0 to 1.
        drift: In parts of the diagonal.
        strongest_two: From 2 / T (at least 2 frames) to 1.
        frames: In how many frames the target is to be seen.
    """

    on_target: float
    drift: float
    strongest_two: float
    frames: int


def track(own: Tensor, target: Tensor) -> Tracking:
    """Follow a target.

    Args:
        own: One clip's map, not negative, (T, H, W).
        target: Pixels that lie in the target's box, bool (T, H, W).
    """
    shown = target.flatten(1).any(dim=1)
    h, w = own.shape[1:]
    by_frame = own.double().sum(dim=(1, 2))
    strongest = by_frame.sort(descending=True).values[:2].sum() / by_frame.sum()
    if not bool(shown.any()):
        return Tracking(float("nan"), float("nan"), float(strongest), 0)
    maps, marked = own[shown].double(), target[shown]
    highest = maps.amax(dim=(1, 2), keepdim=True)
    peaks = (maps >= highest * (1 - _TIE)).double()
    count = peaks.sum(dim=(1, 2))
    on_target = (peaks * marked).sum(dim=(1, 2)) / count
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    y, x = y.to(maps), x.to(maps)
    size = marked.sum(dim=(1, 2))
    middle_y, middle_x = ((marked * axis).sum(dim=(1, 2)) / size for axis in (y, x))
    distance = torch.hypot(y - middle_y[:, None, None], x - middle_x[:, None, None]) / (h * h + w * w) ** 0.5
    drift = (peaks * distance).sum(dim=(1, 2)) / count
    return Tracking(float(on_target.mean()), float(drift.mean()), float(strongest), int(shown.sum()))
