"""Semantic-aware temporal accumulation (STA): drops tokens that later frames repeat and that say little.

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", ICCV 2023, and the authors'
code, which is for ViT alone. Defaults follow that code where it differs from the print:

- At the second and third place two and four frames are read as one, each of which drops r tokens; printed is r/2 and
  r/4 of every frame (``frames="single"``). The counts are the same.
- The second frame is compared with the whole first one; printed is what was kept of it (``previous="kept"``).
- Within a frame tokens go on in the order of ascending score, so that even and odd ones of later places are no
  neighbours in the picture.

In families whose grid is whole again at every place, tokens are dropped anew there, frame by frame (Video Swin: as the
paper's costs tell; its code was never published). In divided TimeSformer, and in MViT after the layers that pool, the
same happens on filled grids; nobody has shown that STA keeps the accuracy there.

Deviations: where the first frame is to lose more than its even tokens, matching (``first="tome"``) cannot choose and a
regular grid stays. Where no layer with keys has run yet (the first layers were pruned away or are ablated), the tokens
themselves are compared. Random drawing of the first frame is the same in every clip. A frame of equal strengths counts
as weak throughout; the code divides 0 by 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sightline.backbones.contract.reducer import Needs, Place, Reducer, Selection
from sightline.tokens.matching import in_full
from sightline.tokens.sta.schedule import (
    AUTO,
    FACTORS,
    PAPER,
    SINGLE,
    SUPER,
    PlacePlan,
    check_schedule,
    largest_r,
    place_plans,
    scaled_schedules,
)
from sightline.tokens.sta.score import (
    ACCUMULATION,
    BOTH,
    KEPT,
    SEMANTICS,
    WHOLE,
    Seen,
    choose,
    first_at_random,
    first_by_grid,
    first_by_matching,
    unit_vectors,
)
from sightline.tokens.token_reducer import TokenReducer

if TYPE_CHECKING:
    from sightline.backbones import Backbone, TokenState

TOKENS = "mlp"
CHOICES = {
    "first": ("tome", "grid", "random"),
    "similarity": ("keys", "queries", "values", TOKENS),
    "score": (BOTH, ACCUMULATION, SEMANTICS),
    "frames": (AUTO, SUPER, SINGLE),
    "previous": (WHOLE, KEPT),
}


@dataclass(frozen=True)
class STA(TokenReducer):
    """Drops tokens of every frame that gather much of the frame before and have little strength of their own.

    Attributes:
        r: Tokens that each frame of the grid drops at the first place; -1 for 16/49 of them (64 of 196, 256 of 784).
        first: How the frame without one before it chooses: ``tome`` (even tokens most similar to an odd one go),
            ``grid`` or ``random``.
        order: Direction of the pass at each place, a row of ``f`` and ``b``; read again from its start where there are
            more places.
        similarity: What tokens are compared by: ``keys``, ``queries`` or ``values`` of the layer before, or ``mlp``:
            its output.
        schedule: What goes at later places, see `sightline.tokens.sta.schedule.place_plans`.
        score: ``both``, ``accumulation`` or ``semantics`` alone.
        frames: ``super``: two frames, then four are read as one; ``single``; ``auto``: super unless the grid is whole
            again at every place.
        previous: What of the first frame the second is compared with: ``whole`` or what was ``kept``.
        seed: Of ``first="random"``.
    """

    r: int = -1
    first: str = "tome"
    order: str = "fbf"
    similarity: str = "keys"
    schedule: str = PAPER
    score: str = BOTH
    frames: str = AUTO
    previous: str = WHOLE
    seed: int = 0
    shapes_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"STA's {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if not self.order or set(self.order) - set("fb"):
            raise ValueError(
                f"STA's order must be a row of f (forward) and b (backward), like fbf, got {self.order!r}."
            )
        if self.r < -1:
            raise ValueError(f"STA's r must be at least 0, or -1 for the paper's share of a frame, got {self.r}.")
        check_schedule(self.schedule, self.r)

    def fitted(self, backbone: Backbone) -> FittedSTA:
        plans = place_plans(backbone, self.r, self.schedule, self.frames)
        return FittedSTA(self, plans, attention=self.attention)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return self.fitted(backbone).places(backbone)

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        raise ValueError("How many tokens STA drops depends on the backbone: ask the reducer that `fitted` returns.")

    def amounts(self, backbone: Backbone) -> Sequence[STA]:
        if self.schedule != PAPER and self.schedule not in FACTORS:
            place_plans(backbone, self.r, self.schedule, self.frames)  # its checks
            return [replace(self, schedule=it) for it in scaled_schedules(backbone, self.schedule, self.frames)]
        most = largest_r(backbone, self.schedule, self.frames)
        return [replace(self, r=amount) for amount in range(most + 1)]


@dataclass(frozen=True)
class FittedSTA(Reducer):
    """STA with the numbers that it drops on one backbone.

    Attributes:
        options: What was asked for.
        plans: What goes at each place.
    """

    options: STA
    plans: Mapping[Place, PlacePlan] = field(hash=False)
    shapes_alone: ClassVar[bool] = True

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        seen = self.options.similarity
        return dict.fromkeys(self.plans, Needs() if seen == TOKENS else Needs(**{seen: True}))

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        plan, number = self.plans[place], list(self.plans).index(place)
        if state.patches != sum(plan.before):
            raise ValueError(
                f"STA expects {sum(plan.before)} tokens at {place}, got {state.patches}: they were reduced before by "
                "something else. Give one token reduction, the same to embed and run."
            )
        if not plan.drops:
            return None
        cells = state.cell_numbers()
        options = self.options
        firsts: dict[str, Callable[[Seen, int], Tensor]] = {
            "tome": first_by_matching,
            "grid": first_by_grid,
            "random": partial(first_at_random, seed=f"{options.seed} {place}"),
        }
        with in_full(state.tokens.device):
            positions = choose(
                self._seen(state),
                plan.before,
                plan.kept,
                firsts[options.first],
                backward=options.order[number % len(options.order)] == "b",
                score=options.score,
                previous=options.previous,
            )
        return Selection(cells.gather(1, positions))

    def _seen(self, state: TokenState) -> Seen:
        tokens = state.tokens[:, state.class_tokens :].detach()
        features = state.features.get(self.options.similarity)
        # The first layers may be gone: then there is nothing yet but the tokens.
        compared = tokens if features is None else features[:, state.class_tokens :]
        strength = tokens.abs().sum(dim=2, dtype=torch.promote_types(tokens.dtype, torch.float32))
        return Seen(unit_vectors(compared), strength, state.cell_numbers())
