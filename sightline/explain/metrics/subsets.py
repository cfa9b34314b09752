"""How values agree with what the class's probability loses when single parts, or random subsets of them, are gone.

- **Faithfulness** (Alvarez-Melis and Jaakkola, "Towards Robust Interpretability with Self-Explaining Neural Networks",
  NeurIPS 2018; AIX360): Pearson's correlation of the parts' values with the falls when each is gone alone.
- **Sensitivity-n** (Ancona et al., "Towards better understanding of gradient-based attribution methods", ICLR 2018):
  Pearson's correlation of the sums of values over random subsets of n parts with the falls without these.
- **Infidelity** (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 2.1): the
  mean of (sum of values over a subset - fall)^2, values scaled by the factor that makes it smallest, as captum does
  with ``normalize``: else a method's unit decides. In units of a probability squared; low is good.

What is lost does not depend on the method: it is computed once for a clip and serves all of them.

Shapes: M parts, S subsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.explain.attribution.tubelets import with_tubelets
from sightline.explain.metrics.removal import Parts, Score

SIZE, SUBSETS = 0.1, 64
"""Share of the parts in a subset, and how many subsets there are."""


@dataclass(frozen=True)
class Falls:
    """What one clip's score loses.

    Attributes:
        masks: Which parts are gone, bool (S, M).
        falls: How much less the score then is, float64 (S,).
    """

    masks: Tensor
    falls: Tensor


def single_falls(score: Score, clip: Tensor, parts: Parts, base: str) -> Falls:
    """Take away each part alone."""
    return _falls(score, clip, torch.eye(parts.count, dtype=torch.bool, device=clip.device), parts, base)


def subset_falls(score: Score, clip: Tensor, parts: Parts, base: str, seed: int) -> Falls:
    """Take away random subsets of equally many parts."""
    size = max(round(SIZE * parts.count), 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(SUBSETS, parts.count, generator=generator).argsort(dim=1)[:, :size]
    masks = torch.zeros(SUBSETS, parts.count, dtype=torch.bool).scatter(1, order, True)
    return _falls(score, clip, masks.to(clip.device), parts, base)


def agreement_metrics(values: Tensor, single: Falls, subsets: Falls) -> dict[str, float]:
    """Return faithfulness, sensitivity-n and infidelity of values (M,); NaN where one side is constant."""
    sums = subsets.masks.double() @ values.double()
    return {
        "faithfulness": pearson(values.double(), single.falls[single.masks.int().argmax(dim=1).argsort()]),
        "sensitivity_n": pearson(sums, subsets.falls),
        "infidelity": infidelity(sums, subsets.falls),
    }


def pearson(a: Tensor, b: Tensor) -> float:
    """Return Pearson's correlation of two vectors; NaN where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    length = a.norm() * b.norm()
    return float(a @ b / length) if float(length) > 0 else float("nan")


def infidelity(sums: Tensor, falls: Tensor) -> float:
    """Return the mean squared difference of falls and sums, these scaled so that it is smallest."""
    power = (sums * sums).mean()
    scale = (sums * falls).mean() / power if float(power) > 0 else sums.new_zeros(())
    return float((scale * sums - falls).square().mean())


def _falls(score: Score, clip: Tensor, masks: Tensor, parts: Parts, base: str) -> Falls:
    whole = score(clip)
    found = [whole - score(with_tubelets(clip, ~some, parts.ids, base)) for some in masks.split(32)]
    return Falls(masks, torch.cat(found))
