"""Token reduction as an argument of a call: where a reducer is asked, what it sees there, and what it answers.

A reducer never changes the module that runs with it. A run asks it at the places that it names, with the observations
that it needs there and no others, and goes on with the tokens that it keeps.

Shapes: B clips, K kept patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from sightline.backbones.contract.kept_cells import Attending
from sightline.backbones.contract.observation import FEATURES, Feature
from sightline.backbones.contract.received_attention import received_attention

if TYPE_CHECKING:
    from sightline.backbones.contract.backbone import Backbone
    from sightline.backbones.contract.layer import Layer
    from sightline.backbones.contract.state import TokenState

Kind = Literal["embedding", "layer", "attention", "stage"]


@dataclass(frozen=True)
class Place:
    """Where in a backbone a reducer is asked.

    Attributes:
        kind: ``embedding``: before everything else. ``layer``: after a layer. ``attention``: in a layer, between its
            last attention site and its MLP. ``stage``: where a stage begins, after what stands before it (merging).
        index: Original index of the layer, or index of the stage; 0 of the embedding.

    A place of a layer that was removed or is ablated stays where it was: what the reducer sees there is what the last
    layer before it has left.
    """

    kind: Kind
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "embedding" else f"{self.kind} {self.index}"


@dataclass(frozen=True)
class Needs:
    """What a reducer sees at a place besides the tokens.

    Attributes:
        keys: The keys of the last attention site that has run and has heads, by token, (B, N, h, d), among
            `TokenState.features`. There are none while no such site has run (the first layers may be pruned away or
            ablated). A head that is gated or ablated still has its keys, a removed one has not.
        queries: Its queries, likewise.
        values: Its values, likewise.
        attention: What each token receives in the last attention site of the layer that follows, which for that is
            computed on the tokens that are here, (B, N): as `AttentionLayout` reads a map, mean over heads. There is
            none where no layer of the same stage follows.
        pixels: The clips, as `TokenState.pixels`.
    """

    keys: bool = False
    queries: bool = False
    values: bool = False
    attention: bool = False
    pixels: bool = False

    @property
    def features(self) -> frozenset[Feature]:
        """Which of keys, queries and values are needed."""
        return frozenset(name for name in FEATURES if getattr(self, name))


@dataclass(frozen=True)
class Selection:
    """A reducer's answer: the patches to go on with.

    Attributes:
        cells: Their cells in the grid of the state, int64 (B, K), in the order in which they are to stand.
        exists: Which of them exist, bool (B, K), where clips keep unequal numbers; all where None.
        into: Which of them every patch that is here is merged into, see `TokenState.merge`; None where those that are
            not kept are dropped.
    """

    cells: Tensor
    exists: Tensor | None = None
    into: Tensor | None = None

    def of(self, state: TokenState, how: Attending) -> TokenState:
        """Return the state with these patches alone; errors as in `TokenState.select` and `TokenState.merge`."""
        if self.into is None:
            return state.select(self.cells, self.exists, how)
        return state.merge(self.cells, self.into, self.exists, how)


@dataclass(frozen=True)
class Reducer(ABC):
    """Chooses at some places of a backbone the tokens to go on with.

    Subclasses are frozen dataclasses whose fields, all with defaults, are their options.

    Attributes:
        attention: ``sparse`` or ``filled``, see `Attending.sparse`: the same result, at another cost. Programs of fixed
            shapes are always ``filled``.
        shapes_alone: Whether it can also be asked of tensors without data (on PyTorch's meta device), so that costs can
            be told from shapes.
    """

    attention: str = field(default="sparse", kw_only=True)
    shapes_alone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.attention not in ("sparse", "filled"):
            raise ValueError(f"The attention of a token reduction must be sparse or filled, got {self.attention!r}.")

    @property
    def equal_counts(self) -> bool:
        """Whether every clip keeps equally many tokens, whatever is to be seen in it."""
        return True

    @property
    def attending(self) -> Attending:
        """How layers attend to what it leaves."""
        return Attending(sparse=self.attention == "sparse")

    def fitted(self, backbone: Backbone) -> Reducer:
        """Return the reducer that acts in a run of a backbone; its places and answers are the ones that count.

        That is needed where an answer depends on more than the place and what is to be seen there: on which of several
        places it is, or on how clips are normalised.

        Raises:
            ValueError: If it cannot work with this backbone.
        """
        return self

    @abstractmethod
    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        """Return where it is asked, and what it needs to see there.

        Raises:
            ValueError: If it cannot work with this backbone.
        """

    @abstractmethod
    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        """Return which patches to go on with from a place; None for all that are there. Asked of what is `bound`."""


class ReductionPoints:
    """Where a reducer acts during one run of a backbone."""

    def __init__(self, backbone: Backbone, reducer: Reducer, skip: Collection[int] = ()) -> None:
        """Ask the reducer for its places and check them.

        Args:
            backbone: What runs.
            reducer: What chooses the tokens.
            skip: Layers that are ablated in this run.

        Raises:
            ValueError: If the family cannot run with dropped tokens, or the reducer names a place that does not exist.
        """
        if backbone.dropped_tokens == "refused":
            raise ValueError(
                f"{backbone.family} needs all of its tokens, so no token reduction can run with it. Leave "
                "tokens out, or choose a backbone of another family."
            )
        self._backbone = backbone
        self._skip = set(skip)
        self._reducer = reducer.fitted(backbone)
        self._places = dict(self._reducer.places(backbone))
        starts = backbone.stage_starts
        self._stages = {start: stage for stage, start in enumerate(starts)}
        # A site without heads has no keys.
        running = [info.index for info in backbone.layers if info.index not in skip and info.sites[-1].heads]
        self._features_of: dict[int, set[Feature]] = {}
        self._carried_past: dict[int, set[Feature]] = {}
        self._last_pixels = -2
        for place, needs in self._places.items():
            limit = {"embedding": 1, "stage": len(starts)}.get(place.kind, backbone.depth)
            if not 0 <= place.index < limit:
                raise ValueError(f"{backbone.family} has no place {place} for tokens to be dropped at.")
            last = -1 if place.kind == "embedding" else place.index
            if place.kind == "stage":
                last = starts[place.index] - 1
            # Of a stage's place, the layer that follows is the last for which something must be kept.
            until = last + 1 if place.kind == "stage" else last
            if needs.pixels:
                self._last_pixels = max(self._last_pixels, until)
            if unknown := needs.features - backbone.shown_features:
                raise ValueError(
                    f"{backbone.family} can show a reducer {', '.join(sorted(backbone.shown_features))} of its tokens, "
                    f"not {', '.join(sorted(unknown))}. Choose another similarity."
                )
            if needs.features:
                # Two: where ablation skips the last of them, the features of the one before it are the last.
                before = [index for index in running if index <= last][-2:]
                for index in before:
                    self._features_of.setdefault(index, set()).update(needs.features)
                for index in range(min(before, default=until), until):
                    self._carried_past.setdefault(index, set()).update(needs.features)
        self._first = min(self._places, key=self._turn, default=None)

    @property
    def need_pixels(self) -> bool:
        """Whether the reducer needs the clips at some place."""
        return any(needs.pixels for needs in self._places.values())

    def wanted_features(self, layer: int) -> Collection[Feature]:
        """Which features of a layer's last site may be needed after it."""
        return sorted(self._features_of.get(layer, ()))

    def trimmed(self, state: TokenState, layer: int) -> TokenState:
        """Return the state behind a layer (-1: behind the embedding) without what no later place reads."""
        carried = self._carried_past.get(layer, ())
        features = {name: values for name, values in state.features.items() if name in carried}
        pixels = state.pixels if layer < self._last_pixels else None
        if len(features) == len(state.features) and pixels is state.pixels:
            return state
        return replace(state, features=features, pixels=pixels)

    def stage_at(self, layer: int) -> int | None:
        """Return the stage that begins with a layer (whether that still exists or not); None inside of stages."""
        return self._stages.get(layer)

    def reduced(self, place: Place, state: TokenState) -> TokenState:
        """Return the state that goes on from a place: the same one where the reducer is not asked or drops nothing."""
        needs = self._places.get(place)
        if needs is None:
            return state
        if place == self._first and state.kept is not None:
            raise ValueError(
                f"Tokens were already dropped before {place}, the first place of this token reduction: only one can "
                "run. Give the same one to embed and run, and start from a state with all tokens."
            )
        assert all(values.shape[:2] == state.tokens.shape[:2] for values in state.features.values())
        wanted: Collection[str] = needs.features
        features = {name: values for name, values in state.features.items() if name in wanted}
        if needs.attention and (layer := self._following(place)) is not None:
            features["attention"] = received_attention(layer, state)
        shown = replace(state, pixels=state.pixels if needs.pixels else None, features=features)
        kept = self._reducer.reduce(place, shown)
        return state if kept is None else kept.of(state, self._reducer.attending)

    def _turn(self, place: Place) -> tuple[int, int]:
        """Return what sorts places in the order of a run."""
        index = self._backbone.stage_starts[place.index] if place.kind == "stage" else place.index
        return index, ("embedding", "stage", "attention", "layer").index(place.kind)

    def _following(self, place: Place) -> Layer | None:
        """Return the first layer behind a place that exists, has heads and is not ablated; None where none follows.

        Only of the same stage: what stands between stages would change the tokens.
        """
        starts, inside = self._backbone.stage_starts, place.kind in ("layer", "attention")
        here = starts[place.index] if place.kind == "stage" else place.index
        end = min((start for start in starts if start > here), default=self._backbone.depth)
        return next(
            (
                layer
                for index, layer in self._backbone.layer_modules().items()
                if here + inside <= index < end and index not in self._skip and layer.sites[-1].heads
            ),
            None,
        )
