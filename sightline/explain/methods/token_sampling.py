"""Token input sampling: run on subsets of the tokens, the others really removed, and weigh each subset by its score.

Source: Englebert et al., "Explaining through Transformer Input Sampling" (TIS), ICCV Workshops 2023: subsets come from
clustering the activations of the encoder's tokens, every channel of every layer being one map over the tokens; the
centre of a cluster is a map whose highest tokens make up a subset. The model runs on the class token and these tokens.
The explanation is the mean of the subsets weighed by the class's probability.

Deviations:
- k-means runs a fixed number of rounds from seeded centres, on the tokens after the embedding and after every layer of
  the embedding's grid, each channel scaled to mean 0 and deviation 1.
- ``random`` subsets instead of clustered ones are an option (RISE, Petsiuk et al., BMVC 2018, on tokens).
- What a token is worth is divided by how many subsets it stands in, as in RISE, since these numbers differ.
- In families that cannot run without some tokens (Video Swin, MViT, divided TimeSformer) the cells of removed ones are
  filled with the nearest that are left where tokens attend; see `Backbone.dropped_tokens`.

Shapes: B clips, C cells, S subsets.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone, Needs, Place, Reducer, Selection, TokenState, run_steps
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.attribution.scores import class_probability
from sightline.explain.cell_map import CellMap

SUBSETS = ("clustered", "random")
ROUNDS = 10
"""Of k-means."""


@dataclass(frozen=True)
class KeepGiven(Reducer):
    """Keeps, before the first layer, the cells that it is given, int64 (B, K)."""

    cells: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.int64))

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return {Place("embedding"): Needs()}

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        return Selection(self.cells.expand(state.batch, -1))


@dataclass(frozen=True)
class TokenSampling(Method):
    """Token input sampling.

    Attributes:
        subsets: ``clustered`` or ``random``.
        count: How many subsets are run.
        kept: Share of the tokens in each.
        seed: Another seed draws others; a clip's draws depend on it and on the clip's pixels.
    """

    name: ClassVar[str] = "token_sampling"
    subsets: str = SUBSETS[0]
    count: int = 128
    kept: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.subsets not in SUBSETS:
            raise ValueError(f"token_sampling takes {' or '.join(SUBSETS)} subsets, got {self.subsets!r}.")
        if self.count < 1 or not 0 < self.kept < 1:
            raise ValueError(
                f"token_sampling takes at least one subset and keeps a share between 0 and 1, got {self.count} and "
                f"{self.kept:g}."
            )

    def check(self, backbone: Backbone) -> None:
        if backbone.dropped_tokens == "refused":
            raise ValueError(f"token_sampling removes tokens, and {backbone.family} cannot run without all of them.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        maps = []
        for clip, target in zip(clips.unsqueeze(1), targets, strict=True):
            state = backbone.embed(clip)
            cells = state.grid[0] * state.grid[1] * state.grid[2]
            size = min(max(round(self.kept * cells), 1), cells - 1)
            seed = zlib.crc32(clip.cpu().contiguous().numpy().tobytes(), self.seed)
            generator = torch.Generator().manual_seed(seed)
            if self.subsets == "random":
                worth = torch.rand(self.count, cells, generator=generator).to(clip.device)
            else:
                worth = centres(activations(backbone, clip), self.count, generator)
            chosen = worth.argsort(dim=1, descending=True, stable=True)[:, :size].sort(dim=1).values
            scores = [
                class_probability(backbone, clip, target.view(1), reducer=KeepGiven(cells=one[None])) for one in chosen
            ]
            masks = torch.zeros(self.count, cells, dtype=torch.float64, device=clip.device).scatter(1, chosen, 1.0)
            # Of a token that no subset holds nothing is known: the mean of the scores.
            total, times = torch.cat(scores) @ masks, masks.sum(dim=0)
            maps.append(torch.where(times > 0, total / times.clamp(min=1), torch.cat(scores).mean()))
        values = torch.stack(maps).unflatten(1, state.grid)
        clustering = float(self.subsets == "clustered")
        return Attribution(
            CellMap.over(values, backbone.input_spec), passes=Passes(forward=self.kept * self.count + clustering)
        )


@torch.no_grad()
def activations(backbone: Backbone, clip: Tensor) -> Tensor:
    """Return every channel of every layer on the embedding's grid as a map over its cells, (maps, C); one clip."""
    state = first = backbone.embed(clip)
    found = [state.tokens[0, state.class_tokens :].T]
    for step in run_steps(backbone, state):
        if step.kind == "mlp" and step.after.grid == first.grid:
            found.append(step.after.tokens[0, step.after.class_tokens :].T)
    maps = torch.cat(found).float()
    deviation = maps.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)
    return (maps - maps.mean(dim=1, keepdim=True)) / deviation


def centres(maps: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the centres of k-means over maps (n, C), (count, C); where there are fewer maps, some are repeated."""
    order = torch.randperm(len(maps), generator=generator).to(maps.device)
    found = maps[order[torch.arange(count, device=maps.device) % len(maps)]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(maps, found).argmin(dim=1)
        sums = torch.zeros_like(found).index_add(0, nearest, maps)
        sizes = nearest.bincount(minlength=count).unsqueeze(1)
        found = torch.where(sizes > 0, sums / sizes.clamp(min=1), found)  # an empty cluster stays where it is
    return found
