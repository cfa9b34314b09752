"""What a token reduction did: which cells it kept at every place, and which share of the tokens that leaves.

Shapes: B clips, K kept patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sightline.backbones import Backbone, Needs, Place, Reducer, Selection, TokenState, run_steps
from sightline.backbones.contract.kept_cells import Attending
from sightline.tokens.token_reducer import TokenReducer


@dataclass(frozen=True)
class KeptAt:
    """What was kept at one place.

    Attributes:
        place: Where the reducer was asked.
        grid: The grid (T, H, W) that the cells are counted in, row-major.
        cells: Cells whose tokens go on, in the order in which these stand, int64 (B, K); -1 where a clip keeps fewer
            than K.
        before: How many patches each clip had before, int64 (B,).
        merged_into: Cell of the token that each cell's patch is part of afterwards, int64 (B, T * H * W); -1 where it
            was dropped. None where nothing has been merged yet: then every token is its own patch alone.
        heat: What the reducer found every cell worth, in [0, 1], (B, T * H * W), 0 where no patch was any more; None
            of reducers that tell nothing such.
    """

    place: Place
    grid: tuple[int, int, int]
    cells: Tensor
    before: Tensor
    merged_into: Tensor | None = None
    heat: Tensor | None = None

    @property
    def after(self) -> Tensor:
        """How many patches each clip has afterwards, int64 (B,)."""
        return (self.cells >= 0).sum(dim=1)


@torch.no_grad()
def trace(backbone: Backbone, clips: Tensor, reducer: Reducer) -> list[KeptAt]:
    """Run clips (B, 3, T, H, W) with a reducer; return what it kept at each of its places, in the order of the run.

    Raises:
        ValueError: If the reducer cannot work with this backbone.
    """
    recording = _Recording(reducer)
    backbone(clips, reducer=recording)
    return recording.found


@torch.no_grad()
def kept_share(backbone: Backbone, clips: Tensor, reducer: Reducer) -> Tensor:
    """Return which share of the patches is left, averaged over the layers that exist, for every clip, float (B,).

    A layer counts the patches that it runs on, relative to the cells of the grid that they lie on; one that fills the
    grid first counts as whole. That makes reducers comparable that drop at different places.

    Raises:
        ValueError: If the backbone has no layer, or the reducer cannot work with it.
    """
    shares = []
    state = backbone.embed(clips, reducer)
    for step in run_steps(backbone, state, reducer=reducer):
        if step.kind == "attention" and step.layer is not None and step.site == step.layer.sites[0].name:
            t, h, w = step.before.grid
            there = step.before.densified() if step.layer.fills_first else step.before
            shares.append((there.cell_numbers() >= 0).sum(dim=1) / (t * h * w))
    if not shares:
        raise ValueError(f"{backbone.family} has no layer left, so no share of tokens can be given.")
    return torch.stack(shares).mean(dim=0)


@dataclass(frozen=True)
class _Recording(Reducer):
    """Asks another reducer, and writes down what it answers."""

    reducer: Reducer
    found: list[KeptAt] = field(default_factory=list)

    @property
    def attending(self) -> Attending:
        return self.reducer.attending

    def fitted(self, backbone: Backbone) -> Reducer:
        return replace(self, reducer=self.reducer.fitted(backbone))

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return self.reducer.places(backbone)

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        kept = self.reducer.reduce(place, state)
        after = state if kept is None else kept.of(state, self.attending)
        merged = None if after.kept is None else after.kept.merged_into
        before = (state.cell_numbers() >= 0).sum(dim=1)
        self.found.append(KeptAt(place, state.grid, after.cell_numbers(), before, merged, self._heat(place, state)))
        return kept

    def _heat(self, place: Place, state: TokenState) -> Tensor | None:
        heat = self.reducer.heat(place, state) if isinstance(self.reducer, TokenReducer) else None
        if heat is None or state.is_dense:
            return heat
        t, h, w = state.grid
        cells = state.cell_numbers()
        # One cell more takes what patches that do not exist would write.
        slots = torch.where(cells < 0, t * h * w, cells)
        return heat.new_zeros(state.batch, t * h * w + 1).scatter(1, slots, heat)[:, :-1]
