"""Learning what to keep by trying: draws of a policy over patches, their rewards, and the gradient.

Source: Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction for Vision Transformers", 2021, equations 2
(reward) and 3 (gradient with the self-critical baseline, of Rennie et al., "Self-Critical Sequence Training for Image
Captioning", 2017); REINFORCE: Williams, 1992. The leave-one-out baseline is that of Kool et al., "Buy 4 REINFORCE
Samples, Get a Baseline for Free!", 2019.

Shapes: B clips, N patches that a group gets, K draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["leave_one_out", "self_critical"]
# Scores of exactly 0 or 1, as rounding can make them, have no finite logarithm of what they exclude.
_EDGE = 1e-6


def draws(scores: Tensor, noise: Tensor) -> Tensor:
    """Draw for every patch whether it stays, with its score as the probability, bool (K, B, N).

    Args:
        scores: (B, N), in [0, 1].
        noise: Uniform in [0, 1), (K, B, N).
    """
    return noise < scores


def noise_of(seeds: Sequence[int], count: int, patches: int, group: int) -> Tensor:
    """Return the noise of ``count`` draws for each clip, (K, B, N).

    It hangs on the clip's own seed and the group alone: the other clips of the batch, and which process has them,
    change nothing.
    """
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(zlib.crc32(f"policy/{seed}/{group}".encode()))
        found.append(torch.rand(count, patches, generator=generator))
    return torch.stack(found, dim=1)


def rewards(right: Tensor, share: Tensor, tau: float) -> Tensor:
    """Return 1 - share^2 where the prediction is right, else -tau (equation 2).

    Args:
        right: Whether the prediction is right, bool, of any shape.
        share: Which share of the clip's patches is left, in [0, 1], of the same shape.
        tau: How bad a wrong prediction is.
    """
    return torch.where(right, 1 - share.square(), torch.full_like(share, -tau))


def advantages(found: Tensor, greedy: Tensor, baseline: Baseline) -> Tensor:
    """Return how much better each draw was than its baseline, (K, B).

    Args:
        found: Rewards of the draws, (K, B).
        greedy: Reward of keeping what scores above .5, (B,).
        baseline: ``self_critical``: that reward (equation 3). ``leave_one_out``: the mean of the clip's other draws, of
            which there must be some.

    Either leaves the gradient's expectation as it is, since it does not depend on the draw.
    """
    if baseline == "self_critical":
        return found - greedy
    count = found.shape[0]
    return (found - found.mean(dim=0)) * count / (count - 1)


def policy_loss(scores: Tensor, drawn: Tensor, there: Tensor, advantage: Tensor) -> Tensor:
    """Return what has REINFORCE's estimate as its gradient: - mean over draws and clips of advantage * log p(draw).

    Args:
        scores: (B, N), differentiable.
        drawn: (K, B, N), bool.
        there: Which patches exist, bool (B, N).
        advantage: (K, B); no gradient goes through it.
    """
    safe = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp(_EDGE, 1 - _EDGE)
    log_p = torch.where(drawn, safe.log(), (1 - safe).log())
    return -(advantage.detach() * (log_p * there).sum(dim=2)).mean()
