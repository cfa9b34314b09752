"""Token reduction as an argument of a call: where a reducer is asked, what it sees there, and what it answers.

A reducer never changes the module that runs with it. A run asks it at the places that it names, with the observations
that it needs there and no others, and goes on with the tokens that it keeps.

Shapes: B clips, K kept patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from sightline.backbones.contract.backbone import Backbone
    from sightline.backbones.contract.state import TokenState

Kind = Literal["embedding", "layer", "attention", "stage"]


@dataclass(frozen=True)
class Place:
    """Where in a backbone a reducer is asked.

    Attributes:
        kind: ``embedding``: before everything else. ``layer``: after a layer. ``attention``: in a layer, between its
            last attention site and its MLP. ``stage``: where a stage begins, after what stands before it (merging).
        index: Original index of the layer, or index of the stage; 0 of the embedding.
    """

    kind: Kind
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "embedding" else f"{self.kind} {self.index}"


@dataclass(frozen=True)
class Needs:
    """What a reducer sees at a place besides the tokens.

    Attributes:
        keys: The keys of the last attention site that has run, by token.
        pixels: The clips.
    """

    keys: bool = False
    pixels: bool = False


@dataclass(frozen=True)
class Kept:
    """A reducer's answer: the patches to go on with.

    Attributes:
        cells: Their cells in the grid of the state, int64 (B, K), in the order in which they shall stand.
        exists: Which of them exist, bool (B, K), where clips keep unequal numbers; all where None.
    """

    cells: Tensor
    exists: Tensor | None = None


class Reducer(ABC):
    """Chooses at some places of a backbone the tokens to go on with.

    Subclasses are frozen dataclasses whose fields, all with defaults, are their options.
    """

    @abstractmethod
    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        """Return where it is asked, and what it needs to see there.

        Raises:
            ValueError: If it cannot work with this backbone.
        """

    @abstractmethod
    def reduce(self, place: Place, state: TokenState) -> Kept | None:
        """Return which patches to go on with from a place; None for all that are there."""
