"""Keeping tokens at random: the control that every other token reduction must beat."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.backbones.contract.layout import NO_TOKEN
from sightline.backbones.contract.reducer import Needs, Place, Selection
from sightline.tokens.token_reducer import TokenReducer

if TYPE_CHECKING:
    from sightline.backbones import Backbone, TokenState

# 0.1 of 30 patches are 3, although 0.1 * 30 is a little more.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class KeepRandom(TokenReducer):
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
        super().__post_init__()
        if not 0 < self.kept <= 1:
            raise ValueError(f"The share of patches to keep must be above 0 and at most 1, got {self.kept:g}.")

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        if not -1 <= self.layer < backbone.depth:
            raise ValueError(
                f"{backbone.family} has layers 0 to {backbone.depth - 1}; tokens cannot be dropped after layer "
                f"{self.layer}. Name one of these, or -1 for the embedding."
            )
        return {Place("embedding") if self.layer < 0 else Place("layer", self.layer): Needs(pixels=True)}

    def reduce(self, place: Place, state: TokenState) -> Selection:
        clips, cells_of = state.require_pixels("KeepRandom"), state.cell_numbers()
        kept = [self._draw(clip, place, cells[cells >= 0]) for clip, cells in zip(clips, cells_of, strict=True)]
        cells = pad_sequence(kept, batch_first=True, padding_value=NO_TOKEN)
        exists = cells != NO_TOKEN
        return Selection(cells, None if bool(exists.all()) else exists)

    def amounts(self, backbone: Backbone) -> Sequence[KeepRandom]:
        return [replace(self, kept=percent / 100) for percent in range(100, 0, -1)]

    @property
    def why_no_program(self) -> str:
        return "its draw depends on a checksum of the clip's pixels, which programs cannot compute"

    def _draw(self, clip: Tensor, place: Place, cells: Tensor) -> Tensor:
        """Draw which of a clip's cells stay, in the order in which their tokens stand, int64 (K,)."""
        pixels = clip if clip.dtype == torch.uint8 else (clip.float() * 255).round().to(torch.uint8)
        seed = zlib.crc32(pixels.cpu().contiguous().numpy().tobytes(), zlib.crc32(f"{self.seed} {place}".encode()))
        order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
        count = math.ceil(self.kept * len(cells) - _ROUNDING)
        return cells[order[: max(count, 1)].sort().values.to(cells.device)]
