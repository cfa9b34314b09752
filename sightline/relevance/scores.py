"""How much a prediction changes when a unit is ablated: dprob, jsd and r.

For a sample with label y, base prediction P and prediction P_u with unit u ablated:

    dprob = |P[y] - P_u[y]|
    jsd   = (KL(P || M) + KL(P_u || M)) / 2,  M = (P + P_u) / 2,  base-2 logarithm (Lin, 1991)
    r     = (jsd + dprob) / 2

All lie in [0, 1]. Computed in float64: the softmax of logits from any precision then adds no error of its own.

Shapes: B samples, C classes, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Scores of units on samples.

    Attributes:
        p_true: Base probability of the label, (B,).
        p_true_ablated: The same with the unit ablated, (U, B).
        dprob: (U, B).
        jsd: (U, B).
        predicted: Class that the unablated model predicts, int64 (B,).
    """

    p_true: Tensor
    p_true_ablated: Tensor
    dprob: Tensor
    jsd: Tensor
    predicted: Tensor

    @property
    def r(self) -> Tensor:
        """(jsd + dprob) / 2, (U, B)."""
        return (self.jsd + self.dprob) / 2


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits of distributions along the last axis; 0 log 0 is 0.

    The result is clamped to [0, 1], which rounding can leave by some 1e-16.
    """
    m = (p + q) / 2
    terms = torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)
    # Where both are 0 the ratio is 0/0 and the term is 0.
    terms = torch.where(m > 0, terms, torch.zeros_like(terms))
    return (terms.sum(dim=-1) / (2 * torch.log(torch.tensor(2.0, dtype=p.dtype, device=p.device)))).clamp(0, 1)


def score(base_logits: Tensor, ablated_logits: Tensor, labels: Tensor) -> Scores:
    """Score ablated predictions against the base prediction.

    Args:
        base_logits: (B, C).
        ablated_logits: (U, B, C).
        labels: int64 (B,).

    Raises:
        ValueError: If a logit is not finite; the samples then have no scores.
    """
    if not (torch.isfinite(base_logits).all() and torch.isfinite(ablated_logits).all()):
        raise ValueError(
            "The model returned logits that are not finite (NaN or infinity), so there is nothing to score. "
            "Check that training converged, and use float32 if it ran in half precision."
        )
    # On the CPU: not every device has float64.
    base_logits, ablated_logits, labels = base_logits.cpu(), ablated_logits.cpu(), labels.cpu()
    p = base_logits.double().softmax(dim=-1)
    p_u = ablated_logits.double().softmax(dim=-1)
    true = p.gather(1, labels[:, None]).squeeze(1)
    true_u = p_u.gather(2, labels[None, :, None].expand(p_u.shape[0], -1, 1)).squeeze(2)
    return Scores(
        p_true=true,
        p_true_ablated=true_u,
        dprob=(true - true_u).abs(),
        jsd=jensen_shannon(p, p_u),
        predicted=base_logits.argmax(dim=-1),
    )
