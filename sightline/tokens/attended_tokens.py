"""Keeping the tokens that receive most attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Needs, Place, TokenState
from sightline.tokens.share_reducer import ShareReducer


@dataclass(frozen=True)
class KeepAttended(ShareReducer):
    """Keeps the tokens that receive most attention in the layer that follows, mean over heads.

    After the embedding that is the first layer's raw attention, computed on all tokens before any is dropped. Which
    queries count is what a map of a head reads (`AttentionLayout`): the class token's, or all of them where there is
    none. The layer's attention is computed a second time among what is left: both count in multiply-adds, and the first
    is not fused. Where no layer follows in the stage (all may be pruned away) the cells of `grid` stay.

    Source: the baseline "attention" of Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction for Vision
    Transformers", 2021.
    """

    needs: ClassVar[Needs] = Needs(attention=True)

    def scores(self, place: Place, state: TokenState) -> Tensor:
        received = state.features.get("attention")
        if received is None:
            return torch.zeros_like(state.tokens[:, state.class_tokens :, 0])
        return received[:, state.class_tokens :].detach()
