"""IA-RED²: keeping the patches that learned interpreters find worth it.

Shapes: B clips, N patches that are here, K patches that are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from sightline.backbones import Backbone, Needs, Place, Selection, TokenState
from sightline.backbones.parts.interpreters import Interpreters
from sightline.tokens.changed_tokens import token_changes
from sightline.tokens.keeping import check_share, keep_best, keep_where, patches_of
from sightline.tokens.token_reducer import TokenReducer

FIXED = ("share", "threshold")
# Scores crowd near 0 and 1, so thresholds lie evenly between their logits.
_THRESHOLDS = (0.0, *(1 / (1 + math.exp(-logit / 25)) for logit in range(-200, 201)))
# Share of a clip's mean change below which changes hardly differ: noise of pixels is of that size.
_STILL = 0.01


@dataclass(frozen=True)
class IARED2(TokenReducer):
    """Keeps, before each group of layers, the patches that the group's interpreter scores highest.

    The model holds the interpreters (`sightline.backbones.parts.interpreters`); they are trained by
    `lightning_modules.PolicyClassifier`. Patches that go are removed, for their group and all that follow: only where
    clips of one batch keep unequal numbers are the shorter ones filled up and masked, never in a batch of one.

    Source: Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction for Vision Transformers", 2021.
    Deviations:
    - ``share`` is not in the paper. It is the default, because which share a threshold keeps depends on the clips, and
      a program of fixed shapes cannot hold a threshold.
    - The best patch of a clip stays whatever its score, since a clip without any has no prediction.
    - See the interpreters for those of the scores, and the training for its own.

    Attributes:
        fixed: ``share``: `kept` decides how many stay, in every clip equally many. ``threshold``: what is scored above
            it, in each clip as many as there are.
        kept: Share of the patches that is left after the last group, above 0 and at most 1; every group keeps an equal
            share of those that it gets. Rounded up to whole patches.
        threshold: From 0 to 1; the paper's is .5.
    """

    fixed: str = "share"
    kept: float = 0.5
    threshold: float = 0.5

    shapes_alone: ClassVar[bool] = True
    needs_interpreters: ClassVar[bool] = True
    # Of the copies that act in a run; no options.
    _backbone: ClassVar[Backbone | None] = None
    _groups: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fixed not in FIXED:
            raise ValueError(f"IA-RED² works with a fixed {' or '.join(FIXED)}, got {self.fixed!r}.")
        check_share(self.kept)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"The threshold of IA-RED² must be from 0 to 1, got {self.threshold:g}.")

    @property
    def equal_counts(self) -> bool:
        return self.fixed == "share"

    def fitted(self, backbone: Backbone) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "_backbone", backbone)
        return bound

    def of_first(self, groups: int) -> Self:
        """Return the reducer that acts before the first groups alone, as training goes from one to the next."""
        fewer = copy.copy(self)
        object.__setattr__(fewer, "_groups", groups)
        return fewer

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(group_places(interpreters_in(backbone))[: self._groups], Needs())

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        scores = self.scores(place, state)
        if self.fixed == "share":
            return keep_best(state, scores, self._count(place, state))
        return keep_where(state, above(scores, self.threshold, state))

    def scores(self, place: Place, state: TokenState) -> Tensor:
        """Return what every patch that is here is worth, in (0, 1), (B, N)."""
        interpreters = self._interpreters()
        tokens = state.tokens[:, state.class_tokens :]
        motion = relative_motion(state) if interpreters.config.motion else None
        return interpreters.score(self._group(place), tokens, motion)

    def heat(self, place: Place, state: TokenState) -> Tensor:
        return self.scores(place, state)

    def amounts(self, backbone: Backbone) -> Sequence[IARED2]:
        self.places(backbone)
        if self.fixed == "share":
            return [replace(self, kept=mille / 1000) for mille in range(1000, 0, -1)]
        return [replace(self, threshold=round(threshold, 6)) for threshold in _THRESHOLDS]

    def _count(self, place: Place, state: TokenState) -> int:
        """Return how many patches of every clip stay at a place."""
        return patches_of(self.kept ** ((self._group(place) + 1) / len(self._interpreters())), state.grid)

    def _group(self, place: Place) -> int:
        return group_places(self._interpreters()).index(place)

    def _interpreters(self) -> Interpreters:
        if self._backbone is None:
            raise ValueError("IARED2 acts in a backbone: ask reducer.fitted(backbone) for its answers.")
        return interpreters_in(self._backbone)


def interpreters_in(backbone: Backbone) -> Interpreters:
    """Return the interpreters that a backbone holds.

    Raises:
        ValueError: If it holds none.
    """
    if not isinstance(backbone.reducer, Interpreters):
        raise ValueError(
            f"ia_red2 needs a model that holds trained interpreters; this {backbone.family} holds none. Train them, "
            "e.g. python train.py fit --config configs/ia_red2_demo.yaml."
        )
    return backbone.reducer


def group_places(interpreters: Interpreters) -> list[Place]:
    """Return where each group begins, and its interpreter is asked."""
    return [Place("layer", start - 1) if start else Place("embedding") for start in interpreters.starts]


def above(scores: Tensor, threshold: float, state: TokenState) -> Tensor:
    """Return which patches are scored above a threshold, and the best of every clip in any case, bool (B, N)."""
    there = state.cell_numbers() >= 0
    best = scores.masked_fill(~there, -torch.inf).argmax(dim=1, keepdim=True)
    return ((scores > threshold) & there).scatter(1, best, True)


def relative_motion(state: TokenState) -> Tensor:
    """Return how much every patch changes beside the clip's others, (B, N): mean 0 and deviation 1; 0 of missing ones.

    Of the logarithm of `token_changes`, in which what moves a little and what stands still are as far apart as the
    first frame, where everything is new, is from both.
    """
    changes, there = token_changes(state), state.cell_numbers() >= 0
    count = there.sum(dim=1, keepdim=True)
    mean = (changes * there).sum(dim=1, keepdim=True) / count
    logs = (changes + _STILL * mean + 1e-12).log()
    centred = (logs - (logs * there).sum(dim=1, keepdim=True) / count) * there
    return centred / (centred.square().sum(dim=1, keepdim=True) / count).sqrt().clamp(min=1e-6)
