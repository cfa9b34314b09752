"""Keeping tokens at random: the control that every other token reduction must beat."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sightline.backbones.contract.reducer import Kept, Needs, Place, Reducer

if TYPE_CHECKING:
    from sightline.backbones import Backbone, TokenState


@dataclass(frozen=True)
class KeepRandom(Reducer):
    """Keeps a random share of the patches, drawn for every clip by itself.

    The draw depends on the seed and the clip's pixels, so that it is the same in every batch, process and run.

    Attributes:
        kept: Share of the patches to keep, above 0 and at most 1; rounded up to whole patches.
        layer: After which layer the others are dropped (original index); -1 for directly after the embedding.
        seed: Another seed draws others.
    """

    kept: float = 0.5
    layer: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.kept <= 1:
            raise ValueError(f"The share of patches to keep must be above 0 and at most 1, got {self.kept:g}.")

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        if not -1 <= self.layer < backbone.depth:
            raise ValueError(
                f"{backbone.family} has layers 0 to {backbone.depth - 1}; tokens cannot be dropped after layer "
                f"{self.layer}. Name one of these, or -1 for the embedding."
            )
        return {Place("embedding") if self.layer < 0 else Place("layer", self.layer): Needs(pixels=True)}

    def reduce(self, place: Place, state: TokenState) -> Kept:
        there = state.cell_numbers()
        count = math.ceil(self.kept * there.shape[1])
        drawn = [self._draw(clip, there.shape[1], count) for clip in state.require_pixels("KeepRandom")]
        return Kept(there.gather(1, torch.stack(drawn).to(there.device)))

    def _draw(self, clip: Tensor, patches: int, count: int) -> Tensor:
        """Draw which of a clip's patches stay, in ascending order, int64 (count,)."""
        digest = zlib.crc32(clip.cpu().contiguous().numpy().tobytes(), self.seed & 0xFFFFFFFF)
        order = torch.randperm(patches, generator=torch.Generator().manual_seed(digest))
        return order[:count].sort().values
