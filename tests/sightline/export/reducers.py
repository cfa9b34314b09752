"""Token reductions for tests of programs: what they keep is a fixed number, computed from what the model computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from sightline.backbones import Backbone, Needs, Place, Selection, TokenState
from sightline.tokens.token_reducer import TokenReducer


@dataclass(frozen=True)
class KeepLarge(TokenReducer):
    """Drops of every frame the tokens of which something is smallest, at the family's own places.

    Attributes:
        r: How many of each frame.
        by: ``tokens``, ``keys``, ``values``, ``attention`` (what they receive) or ``pixels`` (of the middle of a cell).
        merge: Whether they are merged into the first token of their frame that stays.
    """

    r: int = 3
    by: str = "tokens"
    merge: bool = False

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(backbone.reduction_places, Needs(**({} if self.by == "tokens" else {self.by: True})))

    def amounts(self, backbone: Backbone) -> Sequence[KeepLarge]:
        return [replace(self, r=r) for r in range(self.r + 1)]

    def reduce(self, place: Place, state: TokenState) -> Selection:
        cells, frames = state.cell_numbers(), state.grid[0]
        each = state.patches // frames
        if self.by == "pixels":
            middles = state.require_pixels("KeepLarge").float().mean(dim=1)
            for dim, number in enumerate(state.grid, 1):
                middle = (2 * torch.arange(number) + 1) * middles.shape[dim] // (2 * number)
                middles = middles.index_select(dim, middle)
            size = middles.flatten(1).gather(1, cells)
        else:
            seen = state.features.get(self.by, state.tokens)[:, state.class_tokens :]
            size = seen if seen.dim() == 2 else seen.flatten(2).norm(dim=2)
        falling = size.unflatten(1, (frames, each)).sort(dim=2, descending=True, stable=True).indices
        stay = falling[:, :, : each - self.r].sort(dim=2).values + each * torch.arange(frames).unsqueeze(1)
        stay = stay.flatten(1)
        if not self.merge:
            return Selection(cells.gather(1, stay))
        count = stay.shape[1]
        first = torch.arange(state.patches) // each * (each - self.r)
        into = first.expand(state.batch, -1).scatter(1, stay, torch.arange(count).expand(state.batch, -1))
        return Selection(cells.gather(1, stay), into=into)


@dataclass(frozen=True)
class KeepBright(KeepLarge):
    """Keeps as many as a clip has of something, which no program of fixed shapes can."""

    equal_counts: ClassVar[bool] = False


@dataclass(frozen=True)
class Peeks(KeepLarge):
    """Looks at numbers while it chooses, which a program cannot, and does not say so."""

    def reduce(self, place: Place, state: TokenState) -> Selection:
        return KeepLarge(r=int(state.tokens.sum().item() > 0)).reduce(place, state)
