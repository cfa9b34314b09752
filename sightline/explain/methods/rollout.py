"""Attention rollout: how much of each token is left in what the classifier reads, if attention were all there is.

Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020 (section 3: A = 0.5 W_att + 0.5 I for the
residual connection, and the product A_L ... A_1). W_att is the mean over the heads, as in the authors' code.

TimeSformer's two sites per layer: each gets its own residual connection, as in the model, and the layer's matrix is the
product A_spatial A_temporal, for temporal attention runs first. The class token, which takes no part in temporal
attention, keeps itself there (a row of the identity); in spatial attention its row is the mean over the frames' copies,
as the model averages them. This way of combining them is that of yiyixuxu, "TimeSformer rolled attention" (2021,
github.com/yiyixuxu/TimeSformer-rolled-attention).

Deviations:
- Only the rows that the classifier reads are multiplied through, from the last layer to the first: the class token's,
  or for a classifier of the mean (ViT) the mean of all. The numbers are those of the whole product.
- Sites that lost all their heads leave everything where it is; removed layers likewise. Where only some heads of a site
  are left, the mean is over these.

Rows sum to 1 by construction, since those of W_att do; so does the result, with the class token's share, which is not
part of the map.

Shapes: B clips, G groups, h heads, n tokens of a group, S slots: class tokens, missing tokens, then the cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.backbones import CLASS_TOKEN, NO_TOKEN, AttentionLayout, Backbone, Observation
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.head_maps import observed_layer, require_evaluation

# Slots of a token distribution; cell c has slot c + 2.
_CLASS_SLOT, _CELLS = 0, 2
assert (CLASS_TOKEN, NO_TOKEN) == (-2, -1)


@torch.no_grad()
def rollout(backbone: Backbone, clips: Tensor) -> CellMap:
    """Return the rollout of clips (B, 3, T, H, W): the share of each cell, which add up to 1 less the class token's.

    One forward pass. The mean over heads is kept for every layer: about 35 MB per clip for TimeSformer-B of 16x224x224,
    120 MB for ViT-B.

    Raises:
        ValueError: If the family's matrices are not square, no layer is left, or the backbone is in training mode.
    """
    check_square(backbone)
    require_evaluation(backbone)
    sites: list[_MeanAttention] = []
    state = backbone.embed(clips)
    for info in backbone.layers:
        state, seen = observed_layer(backbone, state, info.index)
        sites += [_MeanAttention.of(seen[site.name]) for site in info.sites]
    share = sites[-1].read_by_classifier(backbone.reads_class_tokens)
    for site in reversed(sites):
        share = 0.5 * share + 0.5 * site.moved(share)
    t, h, w = sites[0].layout.grid
    return CellMap(share[:, _CELLS:].unflatten(1, (t, h, w)), sites[0].layout.cell, backbone.input_spec)


def check_square(backbone: Backbone) -> None:
    """Raise ValueError where the attention of successive layers cannot be multiplied."""
    if not backbone.square_attention:
        raise ValueError(
            f"Attention rollout multiplies the layers' matrices, which must be square over the same tokens; those of "
            f"{backbone.family} are not, because tokens are pooled or merged between or within layers. "
            "Draw maps of single heads instead."
        )
    if not backbone.layers:
        raise ValueError("Attention rollout needs at least one layer, got a backbone of which all are removed.")


@dataclass(frozen=True)
class _MeanAttention:
    """One site's attention, averaged over heads.

    Attributes:
        weights: (B, G, n, n); None where no head is left.
        slots: Slot of every token of a group, (B, G * n).
        copies: In how many groups the token of a slot stands, (B, S).
        layout: The site's layout.
    """

    weights: Tensor | None
    slots: Tensor
    copies: Tensor
    layout: AttentionLayout

    @staticmethod
    def of(seen: Observation) -> _MeanAttention:
        assert seen.attention is not None
        assert seen.layout is not None
        b, g, h, n, _ = seen.attention.shape
        slots = (seen.layout.cells + _CELLS).expand(b, g, n).flatten(1)
        t, rows, columns = seen.layout.grid
        nothing = torch.zeros(b, t * rows * columns + _CELLS, device=slots.device)
        copies = _added(nothing, slots, torch.ones_like(slots, dtype=nothing.dtype))
        return _MeanAttention(seen.attention.float().mean(dim=2) if h else None, slots, copies, seen.layout)

    def read_by_classifier(self, class_tokens: bool) -> Tensor:
        """Return the distribution (B, S) that is uniform over what the classifier reads."""
        slots = torch.arange(self.copies.shape[1], device=self.copies.device)
        read = (self.copies > 0) & (slots == _CLASS_SLOT if class_tokens else slots >= _CELLS)
        return read.float() / read.sum(dim=1, keepdim=True)

    def moved(self, share: Tensor) -> Tensor:
        """Hand the share (B, S) of every token on to the tokens that it attends to."""
        if self.weights is None:
            return share
        b, g, n, _ = self.weights.shape
        held = (share / self.copies.clamp(min=1)).gather(1, self.slots).view(b, g, 1, n)
        given = torch.matmul(held, self.weights).flatten(1)
        return _added(torch.where(self.copies > 0, 0.0, share), self.slots, given)


def _added(values: Tensor, slots: Tensor, what: Tensor) -> Tensor:
    """Return values (B, S) with ``what`` (B, N) added at the slots (B, N)."""
    rows = torch.arange(len(values), device=values.device).unsqueeze(1)
    return values.index_put((rows, slots), what, accumulate=True)
