"""The control of one result of a token reduction: at the same places as many tokens, drawn at random."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.backbones import NO_TOKEN, Backbone, Needs, Place, Reducer, Selection, TokenState
from sightline.tokens.tracing import KeptAt


@dataclass(frozen=True)
class RandomAsMany(Reducer):
    """Keeps, of every clip and at every place, as many patches as another reducer did, whichever they are.

    It belongs to the clips of which the numbers are, in their order. Clips of one batch get the same draw, so that what
    a clip gets does not depend on the others; another seed draws others.

    Attributes:
        counts: How many to keep at each place, by clip, int64 (B,).
        seed: Of the draw.
    """

    counts: Mapping[Place, Tensor]
    seed: int = 0

    @classmethod
    def of(cls, kept: Sequence[KeptAt], seed: int = 0) -> RandomAsMany:
        """Return the control of what `trace` has recorded."""
        return cls({at.place: at.after for at in kept}, seed)

    def places(self, backbone: Backbone) -> Mapping[Place, Needs]:
        return dict.fromkeys(self.counts, Needs())

    def reduce(self, place: Place, state: TokenState) -> Selection:
        there = state.cell_numbers()
        counts = self.counts[place].tolist()
        if len(counts) != len(there):
            raise ValueError(f"Expected the {len(counts)} clips that the numbers of tokens are of, got {len(there)}.")
        chosen = [self._draw(place, own[own >= 0], count) for own, count in zip(there, counts, strict=True)]
        cells = pad_sequence(chosen, batch_first=True, padding_value=NO_TOKEN)
        exists = cells != NO_TOKEN
        return Selection(cells, None if bool(exists.all()) else exists)

    def _draw(self, place: Place, cells: Tensor, count: int) -> Tensor:
        """Draw which of a clip's cells stay, in the order in which their tokens stand, int64 (K,)."""
        seed = zlib.crc32(f"{self.seed} {place}".encode())
        order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
        return cells[order[:count].sort().values.to(cells.device)]
