"""ToMe: tokens that are alike are merged, a few in every layer.

Source: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023. In every block, between attention and MLP: the
tokens are dealt out in turn to two sets; each of the first is matched with the one of the second whose key is most like
its own (cosine of the keys' means over heads); the r best matches merge, as means in which each token counts the
patches that it is made of; what is left of the first set then stands before the second (section 3). Proportional
attention adds the logarithm of that number to the logits of keys (equation 1).

Deviations:
- Class tokens take no part in the dealing out, so that the first patch always belongs to the first set.
- At a place where no keys are known, because no layer with heads has run, and in families whose tokens share keys
  (`Backbone.own_keys`), the tokens themselves are compared.
- Families that fill (`Backbone.dropped_tokens`): only patches of the same frame merge, since these families attend
  within frames and windows, and since the similarities of all pairs would not fit into memory. Cells of merged patches
  are filled with their token, which is proportional attention by itself, whatever ``proportional`` says. Where a family
  makes its grid coarser, r shrinks with the cells, and the grid is whole again: patches merge anew.
- Where a classifier reads class tokens alone, nothing is merged in the last layer: nobody would read it.
- ``compared="random"`` is the control of merging: partners are drawn. A mean of two tokens that have nothing in common
  is neither of them, whereas random dropping leaves those that stay as they are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sightline.backbones.contract.kept_cells import Attending
from sightline.backbones.contract.reducer import Needs, Place, Reducer, Selection
from sightline.tokens.matching import matched, most_that_can_merge
from sightline.tokens.token_reducer import TokenReducer

if TYPE_CHECKING:
    from sightline.backbones import Backbone, TokenState

SCHEDULES = ("constant", "decreasing")
COMPARED = ("keys", "tokens", "random")


@dataclass(frozen=True)
class ToMe(TokenReducer):
    """Merges the patches that are most alike, between attention and MLP of every layer.

    Attributes:
        r: How many patches to merge into others in a layer, of a clip on the grid of the embedding; at most half of
            those that are there.
        schedule: ``constant``: r in every layer. ``decreasing``: from 2 r in the first to 0 in the last.
        compared: ``keys`` of attention, the ``tokens`` themselves, or ``random``: nothing, partners are drawn.
        proportional: Let a token weigh as a key as much as the patches that it is made of. The paper does so for models
            trained with labels; it is off for those that were pretrained as masked autoencoders and merge without
            further training.
        seed: Of ``compared="random"``; another one draws other partners, the same for every clip.
    """

    r: int = 64
    schedule: str = "constant"
    compared: str = "keys"
    proportional: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r < 0:
            raise ValueError(f"ToMe merges r patches in a layer, 0 or more, got {self.r}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"The schedule of ToMe must be {' or '.join(SCHEDULES)}, got {self.schedule!r}.")
        if self.compared not in COMPARED:
            raise ValueError(f"ToMe compares patches by {', '.join(COMPARED)}, got {self.compared!r}.")

    @property
    def attending(self) -> Attending:
        return Attending(sparse=self.attention == "sparse", proportional=self.proportional)

    def fitted(self, backbone: Backbone) -> Reducer:
        return _Merging(self, backbone.depth, backbone.dropped_tokens == "filled")

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        needs = Needs(keys=self.compared == "keys" and backbone.own_keys)
        last = backbone.depth - backbone.reads_class_tokens
        return {Place("attention", index): needs for index in range(last) if self.of_layer(index, backbone.depth)}

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        raise ValueError("How ToMe merges depends on the backbone: call fitted(backbone) and ask what it returns.")

    def amounts(self, backbone: Backbone) -> Sequence[ToMe]:
        spec = backbone.input_spec
        clip = torch.zeros(1, 3, spec.frames, spec.height, spec.width, device=next(backbone.parameters()).device)
        with torch.no_grad():
            patches = backbone.tokenize(clip).patches
        # Half of them merge in every layer at the end; the decreasing schedule comes there last in the last but one.
        most = patches // 2 if self.schedule == "constant" else math.ceil(patches * max(backbone.depth - 1, 2) / 4)
        return [replace(self, r=r) for r in range(most + 1)]

    def of_layer(self, index: int, depth: int) -> float:
        """How many patches merge in a layer, on the grid of the embedding."""
        if self.schedule == "constant" or depth == 1:
            return self.r
        return 2 * self.r * (1 - index / (depth - 1))


@dataclass(frozen=True)
class _Merging(Reducer):
    """ToMe in one backbone.

    Attributes:
        tome: Its options.
        depth: Layers that the backbone was built with.
        in_frames: Whether only patches of the same frame merge.
    """

    tome: ToMe
    depth: int
    in_frames: bool

    @property
    def attending(self) -> Attending:
        return self.tome.attending

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return self.tome.places(backbone)

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        if state.key_mask is not None:
            raise ValueError(
                "ToMe merges equally many patches of every clip, but these clips have unequal numbers; reduce their "
                "tokens by one method alone."
            )
        cells, frames = state.cell_numbers(), state.grid[0] if self.in_frames else 1
        count = min(self._wanted(place.index, state), most_that_can_merge(state.patches, frames))
        if not count:
            return None
        metric = self._metric(place, state)
        group = cells // (state.grid[1] * state.grid[2]) if self.in_frames else torch.zeros_like(cells)
        pairs = matched(metric[:, state.class_tokens :], group, frames, count)
        # Those that merge stand behind what is left of the first set and the second, and are cut off.
        rank = torch.where(pairs.first, 0, 1).scatter(1, pairs.goes, 2)
        order = rank.sort(dim=1, stable=True).indices
        into = order.argsort(dim=1)
        into = into.scatter(1, pairs.goes, into.gather(1, pairs.partner))
        return Selection(cells.gather(1, order[:, :-count]), into=into)

    def _metric(self, place: Place, state: TokenState) -> Tensor:
        """Return what tokens are compared by, (B, N, d)."""
        if self.tome.compared == "random":
            draw = torch.Generator().manual_seed(zlib.crc32(f"{self.tome.seed} {place}".encode()))
            drawn = torch.randn(state.tokens.shape[1:], generator=draw).to(state.tokens.device)
            return drawn.expand_as(state.tokens)
        return state.tokens if state.keys is None else state.keys.float().mean(dim=2)

    def _wanted(self, layer: int, state: TokenState) -> int:
        """How many patches to merge in a layer, as many fewer as the grid has become coarser."""
        coarser = math.prod(state.grid) / math.prod(state.embedding_grid or state.grid)
        return round(self.tome.of_layer(layer, self.depth) * coarser)
