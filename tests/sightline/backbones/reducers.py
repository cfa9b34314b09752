"""Reducers for tests: each drops by a simple rule, so that what it keeps is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from sightline.backbones import Backbone, Needs, Place, Reducer, Selection, TokenState
from sightline.backbones.contract.kept_cells import Attending


@dataclass(frozen=True)
class KeepEvery(Reducer):
    """Keeps every n-th of the patches that are there, backwards, at every place named; clip i begins at its i-th."""

    n: int = 2
    at: tuple[Place, ...] = (Place("embedding"),)
    ragged: bool = False

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(self.at, Needs(pixels=self.ragged))

    def reduce(self, place: Place, state: TokenState) -> Selection:
        assert state.keys is None
        cells = state.cell_numbers()
        kept = cells[:, :: self.n].flip(1)
        if not self.ragged:
            assert state.pixels is None
            return Selection(kept)
        # Clips whose pixels add up to an odd number keep one patch fewer, whatever batch they are in.
        exists = kept >= 0
        exists[:, -1] &= state.require_pixels("this test").long().flatten(1).sum(dim=1) % 2 == 0
        return Selection(kept, exists)


@dataclass(frozen=True)
class MergePairs(Reducer):
    """Merges every second patch that is there into the one before it, at every place named."""

    at: tuple[Place, ...] = (Place("embedding"),)
    proportional: bool = True

    @property
    def attending(self) -> Attending:
        return Attending(proportional=self.proportional)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(self.at, Needs())

    def reduce(self, place: Place, state: TokenState) -> Selection:
        cells = state.cell_numbers()
        into = (torch.arange(state.patches) // 2).expand_as(cells)
        return Selection(cells[:, ::2], into=into)


@dataclass(frozen=True)
class KeepLongKeys(Reducer):
    """Keeps the half of the patches that have the longest keys, or of all where there are no keys yet."""

    at: tuple[Place, ...] = (Place("layer", 0),)
    without_keys: list[Place] = field(default_factory=list)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(self.at, Needs(keys=True))

    def reduce(self, place: Place, state: TokenState) -> Selection:
        cells = state.cell_numbers()
        if state.keys is None:
            self.without_keys.append(place)
            return Selection(cells[:, ::2])
        assert state.keys.shape[:2] == state.tokens.shape[:2]
        length = state.keys.float().pow(2).sum(dim=(2, 3))[:, state.class_tokens :]
        best = length.topk((cells.shape[1] + 1) // 2, dim=1).indices.sort(dim=1).values
        return Selection(cells.gather(1, best))


@dataclass(frozen=True)
class Looks(Reducer):
    """Drops nothing, and writes down whether it saw keys and pixels at each place."""

    seen: dict[Place, tuple[bool, bool]] = field(default_factory=dict)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return {
            Place("embedding"): Needs(),
            Place("attention", 1): Needs(keys=True, pixels=True),
            Place("layer", 1): Needs(pixels=True),
            Place("attention", backbone.depth - 1): Needs(),
        }

    def reduce(self, place: Place, state: TokenState) -> None:
        self.seen[place] = (state.keys is not None, state.pixels is not None)


@dataclass(frozen=True)
class Fails(Reducer):
    """Raises at its second place."""

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return {Place("embedding"): Needs(pixels=True), Place("layer", 0): Needs(keys=True)}

    def reduce(self, place: Place, state: TokenState) -> Selection:
        if place.kind == "layer":
            raise RuntimeError("a reducer failed")
        return Selection(state.cell_numbers()[:, :3])


def all_places(backbone: Backbone) -> list[Place]:
    """Every place that a backbone has."""
    inside = [Place(kind, index) for index in range(backbone.depth) for kind in ("attention", "layer")]  # type: ignore[arg-type]
    return [Place("embedding"), *(Place("stage", stage) for stage in range(len(backbone.stage_starts))), *inside]


def permuted(state: TokenState, seed: int = 0) -> TokenState:
    """All tokens of a dense state in another order, as a state that is not known to be dense."""
    from dataclasses import replace

    from sightline.backbones.contract.kept_cells import KeptCells

    order = torch.randperm(state.patches, generator=torch.Generator().manual_seed(seed))
    rows = torch.cat((torch.arange(state.class_tokens), order + state.class_tokens))
    kept = KeptCells(order.expand(state.batch, -1), None, state.grid)
    return replace(state, tokens=state.tokens[:, rows], kept=kept)
