"""Keeping the tokens that change from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Place, TokenState
from sightline.backbones.contract.state import take_rows
from sightline.tokens.share_reducer import ShareReducer


@dataclass(frozen=True)
class KeepChanged(ShareReducer):
    """Keeps the tokens that differ most from the one before them at the same place of the frame (L2 distance).

    What comes before the first frame counts as zero: there a token's own length is its score, since everything is new,
    and what never moves is seen once. Where the token before was dropped at an earlier place, the last one that is left
    before it stands for it.

    Source: the baseline "temporal difference" of Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction
    for Vision Transformers", 2021. The paper does not say what comes before the first frame; that is our choice.
    """

    def scores(self, place: Place, state: TokenState) -> Tensor:
        return token_changes(state)


def token_changes(state: TokenState) -> Tensor:
    """Return how far every patch's token is from the one before it at its place, (B, N), in single precision at least.

    What is before a place's first token is zero. No gradient goes through it.
    """
    tokens = state.tokens[:, state.class_tokens :].detach()
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    return (tokens - _before(tokens, state)).norm(dim=2)


def _before(tokens: Tensor, state: TokenState) -> Tensor:
    """Return the token before each at its place of the frame, zero where there is none, like tokens (B, N, D)."""
    t, h, w = state.grid
    if state.kept is None:
        return F.pad(tokens, (0, 0, h * w, 0))[:, : tokens.shape[1]]
    position = state.kept.position.unflatten(1, (t, h * w))
    last, before = torch.full_like(position[:, 0], -1), []
    for frame in position.unbind(1):
        before.append(last)
        last = torch.where(frame < 0, last, frame)
    of_cell = torch.stack(before, dim=1).flatten(1)  # (B, C)
    of_token = of_cell.gather(1, state.cell_numbers().clamp(min=0))
    return take_rows(tokens, of_token.clamp(min=0)).masked_fill(of_token.unsqueeze(2) < 0, 0)
