"""Interpreters: small networks that say of every patch how much it is worth keeping, learned for one backbone.

A backbone holds them as its `Backbone.reducer`, so that they are saved, copied, moved and counted with it; a token
reduction reads them (`sightline.tokens.ia_red2`), and a run without one passes over them.

Source: Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction for Vision Transformers", 2021, equation 1:
I = mean over heads h of sigmoid(F_q(X)_h . F_k(P)_h), X a patch's token and P a policy token that is learned.

Deviations, all of them because training from the equation alone ends at keeping everything or nothing:
- Tokens are normalised before F_q.
- The product is divided by the square root of a head's width, as in attention.
- A bias is added to it, one per head, that starts at `START`: before training, every patch is kept.
- F_q and F_k are linear with the widths of the tokens; the paper does not say what they are.
- ``motion`` shows an interpreter how much each token differs from the one before it; the paper's sees single tokens.

Shapes: B clips, N patches, D width, h heads, d = D / h.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.backbones.parts.linear import linear, preserve_variance_

START = 2.0
_SPREAD = 0.3


@dataclass(frozen=True)
class InterpretersConfig:
    """What interpreters a backbone holds.

    Attributes:
        groups: Into how many groups of layers the model is cut; before each is an interpreter.
        heads: Heads of each interpreter.
        motion: Whether interpreters also see how much each token differs from the one before it at its place.
    """

    groups: int = 1
    heads: int = 4
    motion: bool = False

    def __post_init__(self) -> None:
        if self.groups < 1 or self.heads < 1:
            raise ValueError(f"Interpreters need groups and heads of at least 1, got {self.groups} and {self.heads}.")


class Interpreter(nn.Module):
    """Scores the patches of a clip, each by itself."""

    def __init__(self, width: int, heads: int, motion: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width + motion, width)
        self.key = nn.Linear(width, width)
        self.policy_token = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.full((heads,), START))
        for layer in (self.query, self.key):
            preserve_variance_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Products then have this deviation: patches start apart, and all of them far above a threshold of .5.
        nn.init.normal_(self.policy_token, std=_SPREAD)

    def forward(self, tokens: Tensor, motion: Tensor | None = None) -> Tensor:
        """Return what every patch is worth, in (0, 1), (B, N).

        Args:
            tokens: (B, N, D).
            motion: How much each differs from the one before it, (B, N), where the interpreter was built to see it.
        """
        x = self.norm(tokens)
        if motion is not None:
            x = torch.cat((x, motion.unsqueeze(2).to(x.dtype)), dim=2)
        return self._logits(x).sigmoid().mean(dim=2)

    def _logits(self, x: Tensor) -> Tensor:
        """Return the scaled products of all heads, (B, N, h).

        All patches meet the same key, so query weights and key are multiplied first: D h products for a patch instead
        of D D.
        """
        key = self.key(self.policy_token).view(self.heads, -1)  # (h, d)
        scale = math.sqrt(key.shape[1])
        weight = torch.einsum("hdi,hd->hi", self.query.weight.unflatten(0, (self.heads, -1)), key) / scale
        bias = (self.query.bias.view(self.heads, -1) * key).sum(dim=1) / scale + self.bias
        return linear(x, weight, bias)


class Interpreters(nn.ModuleList):
    """One interpreter for each group of layers of a backbone.

    Attributes:
        config: What they are.
        starts: Original index of the first layer of every group.
    """

    def __init__(self, config: InterpretersConfig, width: int, depth: int) -> None:
        """Build interpreters with random weights.

        Args:
            config: What they are.
            width: Channels of the backbone's tokens.
            depth: Its number of layers, which groups share as evenly as they can.

        Raises:
            ValueError: If there are more groups than layers, or the width does not divide into heads.
        """
        if config.groups > depth:
            raise ValueError(f"Interpreters cut the model into {config.groups} groups, but it has {depth} layers.")
        if width % config.heads:
            raise ValueError(
                f"Interpreters share the width, {width}, among their heads; {config.heads} do not divide it."
            )
        super().__init__(Interpreter(width, config.heads, config.motion) for _ in range(config.groups))
        self.config = config
        self.starts = tuple(group * depth // config.groups for group in range(config.groups))

    def score(self, group: int, tokens: Tensor, motion: Tensor | None = None) -> Tensor:
        """Return what every patch that enters a group is worth, in (0, 1), (B, N)."""
        found: Tensor = self[group](tokens, motion)
        return found


def interpreters_of(reducer: nn.Module | None) -> dict[str, Any] | None:
    """Return what interpreters a backbone's `Backbone.reducer` holds, as plain values; None where there are none."""
    return dataclasses.asdict(reducer.config) if isinstance(reducer, Interpreters) else None
