"""Relevance-weighted heads: the maps of all heads, each as much as the class depends on it.

This project's own: what the ablation of a head changes in the prediction (r, jsd or dprob) weighs the head's map. The
scores are measured elsewhere and given, of each clip or their means over a data set, so that a map costs one pass.

Every head's map is divided by its sum first, since sites hand out unequal amounts. Maps of coarser layers are spread
evenly over the cells of the finest grid among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone, Observation, Observer, run_steps
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.cell_map import CellMap, cells_within
from sightline.explain.methods.head_maps import check_heads
from sightline.types import Unit

Weights = Mapping[Unit, float] | Callable[[Backbone, Tensor, Tensor], Mapping[Unit, Tensor]]
"""A weight of every head; or, of a batch of clips and targets, the weights (B,) of every head."""


@dataclass(frozen=True)
class RelevantHeads(Method):
    """The sum of all heads' maps by weight.

    Attributes:
        top: How many of the heads of highest weight count, per clip; all if 0.
        weights: Of the heads; negative ones count as 0, those that are not named likewise.
    """

    name: ClassVar[str] = "relevant_heads"
    top: int = 0
    weights: Weights | None = field(default=None, compare=False, metadata={"given": True})

    def __post_init__(self) -> None:
        if self.top < 0:
            raise ValueError(f"relevant_heads takes a number of heads of 0 (all) or more as top, got {self.top}.")

    def check(self, backbone: Backbone) -> None:
        if self.weights is None:
            raise ValueError(
                "relevant_heads needs the relevance of the heads. Score them first: train.py ablate --run <run>."
            )
        if isinstance(self.weights, Mapping):
            check_heads(backbone, self.weights)
        if not backbone.units("heads"):
            raise ValueError("relevant_heads needs at least one head, got a backbone of which all are removed.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        units = backbone.units("heads")
        weights = self._weights(backbone, clips, targets, units)
        by_site: dict[tuple[int, str], list[int]] = {}
        for place, unit in enumerate(units):
            by_site.setdefault((unit.layer, unit.site), []).append(place)
        found: list[CellMap] = []
        observer = Observer(attention=True)
        with torch.no_grad():
            for step in run_steps(backbone, backbone.embed(clips), observer=observer):
                seen = observer.sites.pop((step.index, step.site), None)
                if seen is not None and (step.index, step.site) in by_site:
                    found.append(_weighed(backbone, seen, weights[:, by_site[step.index, step.site]]))
        return Attribution(added(found), passes=Passes(forward=1))

    def _weights(self, backbone: Backbone, clips: Tensor, targets: Tensor, units: list[Unit]) -> Tensor:
        assert self.weights is not None
        given = self.weights if isinstance(self.weights, Mapping) else self.weights(backbone, clips, targets)
        nothing = torch.zeros(len(clips), device=clips.device)
        columns = [torch.as_tensor(given.get(unit, 0.0), device=clips.device).float() + nothing for unit in units]
        weights = torch.stack(columns, dim=1).clamp(min=0)
        if self.top and self.top < len(units):
            # Ties go to the head that comes first.
            order = weights.argsort(dim=1, descending=True, stable=True)
            weights = weights.scatter(1, order[:, self.top :], 0.0)
        return weights


def _weighed(backbone: Backbone, seen: Observation, weights: Tensor) -> CellMap:
    """Return the sum of a site's maps, each divided by its sum over all cells, by weights (B, h)."""
    assert seen.attention is not None
    assert seen.layout is not None
    rows = seen.layout.query_weights.to(seen.attention.device)
    received = torch.einsum(
        "bghqk,bgq->bghk", seen.attention.float(), rows.expand(seen.attention.shape[:2] + rows.shape[2:])
    )
    maps = [
        CellMap.of_keys(received[:, :, head], seen.layout, backbone.input_spec) for head in range(received.shape[2])
    ]
    values = torch.stack([one.values for one in maps], dim=1)  # (B, h, T, H, W)
    share = values / values.sum(dim=(2, 3, 4), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return CellMap(torch.einsum("bhxyz,bh->bxyz", share, weights), maps[0].cell, maps[0].clip)


def added(maps: list[CellMap]) -> CellMap:
    """Add maps of one clip up on the finest grid among them; coarser ones are spread evenly over its cells."""
    finest = max(maps, key=lambda one: math.prod(one.grid))
    total = torch.zeros_like(finest.values)
    for one in maps:
        total += spread(one.values, finest.grid)
    return CellMap(total, finest.cell, finest.clip)


def spread(values: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Share what the cells (B, t, h, w) of a coarser grid have out evenly among those of a finer one, (B, *grid)."""
    coarse = (values.shape[1], values.shape[2], values.shape[3])
    if coarse == grid:
        return values
    inside = cells_within(grid, coarse, values.device)
    counts = inside.bincount(minlength=math.prod(coarse)).clamp(min=1)
    return (values.flatten(1) / counts)[:, inside].unflatten(1, grid)
