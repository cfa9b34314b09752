"""STA written down word by word: one clip, one frame, one token after the other, in double precision."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch

from sightline.backbones import Backbone, Needs, Place, Reducer, Selection, TokenState
from sightline.tokens import STA

Size3 = tuple[int, int, int]


def shares_of_frames(options: STA, grids: Sequence[Size3], refilled: bool) -> list[Fraction]:
    """Tokens that a frame of the grid drops at each place."""
    if options.schedule[0].isdigit():
        return [Fraction(number) for number in options.schedule.split(",")]
    first = grids[0][1] * grids[0][2]
    r = options.r if options.r >= 0 else math.floor(Fraction(16 * first, 49) + Fraction(1, 2))
    found = []
    for place, (_, height, width) in enumerate(grids):
        factor = {
            "constant": Fraction(1),
            "decreasing": Fraction(1, 2**place),
            "increasing": Fraction(2**place),
            "rising": 1 + Fraction(place, 2),
            "paper": 1 + Fraction(place, 2) if refilled else Fraction(1, 2**place),
        }[options.schedule]
        found.append(Fraction(r * height * width, first) * factor)
    return found


def kept_cells(
    options: STA, place: Place, number: int, grids: Sequence[Size3], refilled: bool, tokens, features, cells
) -> list[int]:
    """Cells that one clip keeps at a place, in order.

    Args:
        options: What was asked for.
        place: The place.
        number: Its number.
        grids: Grid at each place.
        refilled: Whether the grid is whole at each of them.
        tokens: (N, D).
        features: (N, h, d), or None for the tokens themselves.
        cells: Cell of each token, in the order in which they stand.
    """
    frames, height, width = grids[number]
    joined = options.frames == "super" or (options.frames == "auto" and not refilled)
    length = 2**number if joined else 1
    total = math.floor(frames * shares_of_frames(options, grids, refilled)[number] + Fraction(1, 2))
    if not total:
        return list(cells)
    groups, drops = [], []
    for start in range(0, frames, length):
        stop = min(start + length, frames)
        groups.append([i for i, cell in enumerate(cells) if start <= cell // (height * width) < stop])
        drops.append(math.floor(Fraction(total * stop, frames)) - math.floor(Fraction(total * start, frames)))
    cosine = cosines(tokens, features)
    kept: dict[int, list[int]] = {}
    order = list(range(len(groups)))
    if options.order[number % len(options.order)] == "b":
        order.reverse()
    earlier: list[int] = []
    gathered: dict[int, float] = {}
    for turn, group in enumerate(order):
        members, stay = groups[group], len(groups[group]) - drops[group]
        if turn == 0:
            kept[group] = first_frame(options, place, members, stay, cosine, cells)
            earlier = members if options.previous == "whole" else kept[group]
            gathered = dict.fromkeys(earlier, 1.0)
            continue
        now = dict.fromkeys(members, 0.0)
        for j in earlier:
            column = {i: math.exp(cosine[i, j]) for i in members}
            whole = sum(column.values())
            for i in members:
                now[i] += column[i] / whole * gathered[j]
        strength = {i: np.abs(tokens[i]).sum() for i in members}
        low, high = min(strength.values()), max(strength.values())
        score = {}
        for i in members:
            weak = 1 - (strength[i] - low) / (high - low)
            score[i] = {"both": weak * now[i], "accumulation": now[i], "semantics": weak}[options.score]
        kept[group] = sorted(members, key=lambda i: score[i])[:stay]
        earlier = kept[group]
        gathered = {i: now[i] / sum(now[k] for k in earlier) for i in earlier}
    return [cells[i] for group in range(len(groups)) for i in kept[group]]


def first_frame(options: STA, place: Place, members, stay: int, cosine, cells) -> list[int]:
    """Positions of the tokens that stay in the frame that a pass begins with."""
    if options.first == "random":
        return [members[i] for i in sorted(random.Random(f"{options.seed} {place}").sample(range(len(members)), stay))]
    even, odd = members[::2], members[1::2]
    goes = len(members) - stay
    if options.first == "grid" or goes > len(even) or not odd:
        by_cell = sorted(members, key=lambda i: cells[i])
        return [by_cell[math.floor((Fraction(i) + Fraction(1, 2)) * len(members) / stay)] for i in range(stay)]
    likeness = {i: max(cosine[i, j] for j in odd) for i in even}
    rising = sorted(even, key=lambda i: likeness[i])
    return odd + (rising[:-goes] if goes else rising)


def cosines(tokens, features) -> np.ndarray:
    """Cosine of every pair of tokens."""
    rows = tokens if features is None else features.mean(axis=1)
    lengths = np.sqrt((rows**2).sum(axis=1))
    return rows @ rows.T / np.outer(lengths, lengths)


@dataclass(frozen=True)
class Beside(Reducer):
    """Asks STA, and at every place also the literal implementation for the same tokens, which must agree."""

    options: STA
    fast: Reducer | None = None
    grids: Sequence[Size3] = ()
    refilled: bool = False
    asked: list[Place] = field(default_factory=list)
    without_features: list[Place] = field(default_factory=list)

    def fitted(self, backbone: Backbone) -> Reducer:
        fast = self.options.fitted(backbone)
        return replace(self, fast=fast, grids=backbone.reduction_grids, refilled=backbone.refilled)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return self.options.places(backbone)

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        assert self.fast is not None
        found, number = self.fast.reduce(place, state), len(self.asked)
        self.asked.append(place)
        there = state.cell_numbers().tolist()
        tokens = state.tokens[:, state.class_tokens :].numpy()
        features = state.features.get(self.options.similarity)
        if features is None:
            self.without_features.append(place)
        for clip, cells in enumerate(there):
            seen = None if features is None else features[clip, state.class_tokens :].numpy()
            kept = kept_cells(self.options, place, number, self.grids, self.refilled, tokens[clip], seen, cells)
            assert (cells if found is None else found.cells[clip].tolist()) == kept, (place, clip)
        return found


@torch.no_grad()
def asked_beside(backbone: Backbone, clips: torch.Tensor, options: STA) -> list[Place]:
    """Run clips with STA and the literal implementation side by side; return the places where both agreed."""
    reducer = Beside(options)
    backbone(clips, reducer=reducer)
    return reducer.asked
