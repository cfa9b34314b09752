"""Keeping a regular pattern of tokens: the control that looks at nothing and leaves no gaps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sightline.backbones import Place, TokenState
from sightline.tokens.share_reducer import ShareReducer


@dataclass(frozen=True)
class KeepGrid(ShareReducer):
    """Keeps the same evenly spread cells of every clip and frame, for any share.

    Which ones says `sightline.tokens.keeping.spread_cells`: what is kept at a smaller share is part of what is kept at
    a larger one.
    """

    def scores(self, place: Place, state: TokenState) -> Tensor:
        return state.tokens.new_zeros(state.batch, state.patches)
