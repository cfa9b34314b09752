"""What all reducers have in common that keep a given share of the tokens: how many stay, and where the others go.

Shapes: B clips, N patches that are here, C cells of the grid.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Self

from torch import Tensor

from sightline.backbones import Backbone, Needs, Place, Selection, TokenState
from sightline.tokens.keeping import check_share, keep_best, patches_of
from sightline.tokens.token_reducer import TokenReducer

WHERE = ("own", "embedding", "places")


@dataclass(frozen=True)
class ShareReducer(TokenReducer):
    """Keeps the share of the patches that scores highest; equally many of every clip.

    ``own`` is directly after the embedding in families of one stage, and the places of token reduction
    (`Backbone.reduction_places`) in those of several: there the grid is whole again in every stage, and what was
    dropped after the embedding would be back after a few layers.

    Attributes:
        kept: Share of the patches that is left after the last place, above 0 and at most 1; rounded up to whole
            patches. See `shares_left` for what is left before.
        layer: After which layer the others are dropped, all at once (original index); -1 for where ``at`` says.
        at: ``own``, ``embedding`` (directly after it) or ``places`` (those of token reduction).
    """

    kept: float = 0.5
    layer: int = -1
    at: str = "own"

    needs: ClassVar[Needs] = Needs()
    # Of the copy that acts in a run; no option.
    _backbone: ClassVar[Backbone | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.kept)
        if self.at not in WHERE:
            raise ValueError(f"Where patches are dropped must be one of {', '.join(WHERE)}, got {self.at!r}.")

    def fitted(self, backbone: Backbone) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "_backbone", backbone)
        return bound

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(self.shares(backbone), self.needs)

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        return keep_best(state, self.scores(place, state), self.count(place, state))

    @abstractmethod
    def scores(self, place: Place, state: TokenState) -> Tensor:
        """Return how much every patch that is here is worth keeping, (B, N)."""

    def amounts(self, backbone: Backbone) -> Sequence[ShareReducer]:
        self.places(backbone)
        return [replace(self, kept=mille / 1000) for mille in range(1000, 0, -1)]

    def shares(self, backbone: Backbone) -> dict[Place, float]:
        """Return where patches are dropped, and which share of the grid's cells has one afterwards.

        Raises:
            ValueError: If the backbone has no such place.
        """
        if not -1 <= self.layer < backbone.depth:
            raise ValueError(
                f"{backbone.family} has layers 0 to {backbone.depth - 1}; tokens cannot be dropped after layer "
                f"{self.layer}. Name one of these, or -1."
            )
        if self.layer >= 0:
            return {Place("layer", self.layer): self.kept}
        if self.at == "embedding" or (self.at == "own" and len(backbone.stage_starts) == 1):
            return {Place("embedding"): self.kept}
        return shares_left(backbone, self.kept)

    def count(self, place: Place, state: TokenState) -> int:
        """Return how many patches of every clip stay at a place."""
        return patches_of(self.shares(self.backbone)[place], state.grid)

    @property
    def backbone(self) -> Backbone:
        """What it acts in.

        Raises:
            ValueError: If that has not been said.
        """
        if self._backbone is None:
            raise ValueError(f"{type(self).__name__} acts in a backbone: ask reducer.fitted(backbone) for its answers.")
        return self._backbone


def shares_left(backbone: Backbone, kept: float) -> dict[Place, float]:
    """Return which share of the grid's cells has a patch after each place of token reduction.

    In proportion these are the counts of STA's default schedule, so that other reducers can be compared with it at the
    same places. In one stage each place drops half as many as the one before (8 r, 4 r, 2 r patches of a clip); where
    every stage begins with a whole grid each drops anew, half a time the first one's share more than the one before
    (r of 28x28 cells, 1.5 r / 4 of 14x14, 2 r / 16 of 7x7).

    Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023.

    Args:
        backbone: Whose places.
        kept: What is left after the last of them.

    Raises:
        ValueError: If it has none.
    """
    places = backbone.reduction_places
    if not places:
        raise ValueError(
            f"This {backbone.family} has one stage and so no places for token reduction; name a layer, or embedding."
        )
    numbers = range(len(places))
    if len(backbone.stage_starts) == 1:
        dropped = list(accumulate(0.5**number for number in numbers))
    else:
        dropped = [1 + number / 2 for number in numbers]
    return {place: 1 - (1 - kept) * share / dropped[-1] for place, share in zip(places, dropped, strict=True)}
