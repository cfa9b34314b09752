"""Generic attention relevance: attention where the class's score grows with it, added up from layer to layer.

Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers", ICCV 2021, equations 5 and 6 (self-attention): R <- R + A' R with A' the mean over heads of the positive
part of dA * A, R the identity at first. What is read at the end is the classifier's row.

Only that row is multiplied through, from the last layer to the first: r <- r + r A'. The numbers are those of the whole
product.

What the paper does not cover, and how it is done here:

- Classifiers that read the mean of all tokens: their row is that mean.
- Windows (Video Swin): A' has zeros outside of its windows, as the paper's author advises. Two sites of a layer
  (divided TimeSformer) are two steps. The class token's copies in all frames, which the model averages, share its row
  alike; where it takes no part (in time), it keeps its row.
- Keys pooled from several tokens, and grids that change between or within layers (MViT, Video Swin): what a coarse cell
  has is shared out evenly among the finer cells that it covers. Displacements of MViT's pooling are left aside, as in
  the maps of single heads.

Shapes: B clips, S slots: the class token, what lies nowhere, then the cells of a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import CLASS_TOKEN, NO_TOKEN, Backbone, TokenState
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.attention_gradients import Grid, Merging, SiteGradient, attention_gradients
from sightline.explain.methods.relevant_heads import spread

_CELLS = 2
assert (CLASS_TOKEN, NO_TOKEN) == (-2, -1)


@dataclass(frozen=True)
class GenericRelevance(Method):
    """Generic attention relevance of Chefer et al."""

    name: ClassVar[str] = "chefer"
    needs_gradients: ClassVar[bool] = True

    def check(self, backbone: Backbone) -> None:
        if not backbone.units("heads"):
            raise ValueError("chefer needs at least one head, got a backbone of which all are removed.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        passed, last = attention_gradients(backbone, clips, targets)
        row = _read_by_classifier(backbone, last)
        for one in reversed(passed):
            row = _finer(row, one.after, one.before) if isinstance(one, Merging) else _through(row, one)
        values = row[:, _CELLS:].unflatten(1, passed[0].before)
        cells = CellMap.over(values, backbone.input_spec)
        return Attribution(cells, passes=Passes(forward=1, backward=1))


def _read_by_classifier(backbone: Backbone, state: TokenState) -> Tensor:
    """Return the row of what the classifier reads, (B, S)."""
    row = torch.zeros(state.batch, _CELLS + math.prod(state.grid), device=state.tokens.device)
    if backbone.reads_class_tokens:
        row[:, 0] = 1
    else:
        row[:, _CELLS:] = 1 / math.prod(state.grid)
    return row


def _through(row: Tensor, site: SiteGradient) -> Tensor:
    """Return the row before a site, (B, S), of the one after it."""
    mean = (site.attention * site.gradient).clamp(min=0).float().mean(dim=2)  # (B, G, q, k)
    b, g, q, k = mean.shape
    keys = (site.layout.cells + _CELLS).expand(b, g, k).flatten(1)
    if g == 1 and q == site.class_tokens + math.prod(site.after):  # all tokens, in their order; keys may be others
        places = [torch.zeros(site.class_tokens, dtype=torch.int64), _CELLS + torch.arange(math.prod(site.after))]
        queries = torch.cat(places).to(row.device).expand(b, -1)
    else:
        queries = keys
    # A token that stands in several groups leaves the site as their mean; what lies nowhere has no part.
    copies = torch.zeros_like(row).scatter_add(1, queries, torch.ones_like(queries, dtype=row.dtype))
    held = (row / copies.clamp(min=1)).gather(1, queries).masked_fill(queries == NO_TOKEN + _CELLS, 0)
    given = torch.matmul(held.view(b, g, 1, q), mean).flatten(1)
    received = row.new_zeros(b, _CELLS + math.prod(site.layout.grid)).scatter_add(1, keys, given)
    received[:, NO_TOKEN + _CELLS] = 0
    return _finer(row, site.after, site.before) + _finer(received, site.layout.grid, site.before)


def _finer(row: Tensor, coarse: Grid, fine: Grid) -> Tensor:
    """Share what the cells of a coarser grid have out among those of a finer one, (B, S)."""
    cells = spread(row[:, _CELLS:].unflatten(1, coarse), fine).flatten(1)
    return torch.cat((row[:, :_CELLS], cells), dim=1)
