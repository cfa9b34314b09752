"""What attributions are of: the probability of a clip's class. Perturbing methods and all metrics use this one."""

from __future__ import annotations

import torch
from torch import Tensor

from sightline.backbones import Backbone, Reducer

BATCH = 16
"""Clips that run together unless asked otherwise; results do not depend on it but for rounding."""


@torch.no_grad()
def class_probability(
    backbone: Backbone, clips: Tensor, targets: Tensor, batch: int = BATCH, reducer: Reducer | None = None
) -> Tensor:
    """Return the probability of each clip's class, float64 (N,).

    Args:
        backbone: In evaluation mode.
        clips: (N, 3, T, H, W), uint8 or float in [0, 1].
        targets: int64 (N,).
        batch: How many clips run together.
        reducer: Chooses the tokens to go on with.
    """
    found = [backbone(some, reducer=reducer).double().softmax(dim=1) for some in clips.split(batch)]
    return torch.cat(found).gather(1, targets.to(clips.device).unsqueeze(1)).squeeze(1)
