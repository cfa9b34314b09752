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
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import (
    CLASS_TOKEN,
    NO_TOKEN,
    AttentionLayout,
    Backbone,
    Observation,
    Observer,
    Reducer,
    TokenState,
    run_steps,
)
from sightline.backbones.contract.kept_cells import KeptCells
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.head_maps import require_evaluation

# Slots of a token distribution; cell c has slot c + 2.
_CLASS_SLOT, _CELLS = 0, 2
assert (CLASS_TOKEN, NO_TOKEN) == (-2, -1)


@torch.no_grad()
def rollout(backbone: Backbone, clips: Tensor, reducer: Reducer | None = None) -> CellMap:
    """Return the rollout of clips (B, 3, T, H, W): the share of each cell, which add up to 1 less the class token's.

    One forward pass. The mean over heads is kept for every layer: about 35 MB per clip for TimeSformer-B of 16x224x224,
    120 MB for ViT-B.

    Args:
        backbone: In evaluation mode; may be pruned.
        clips: (B, 3, T, H, W), uint8 or float in [0, 1].
        reducer: Chooses the tokens to go on with. A token that is dropped after a layer keeps the share that what was
            left has taken from it in the layers before. A token that others were merged into hands its share back to
            them where they merge, to each in proportion to the patches that it is made of.

    Raises:
        ValueError: If the family's matrices are not square, no layer is left, or the backbone is in training mode.
    """
    check_square(backbone)
    require_evaluation(backbone)
    passed: list[_MeanAttention | _Merge] = []
    observer = Observer(attention=True)
    state = backbone.embed(clips, reducer)
    if (merge := _Merge.of(None, state.kept)) is not None:
        passed.append(merge)
    for step in run_steps(backbone, state, observer=observer, reducer=reducer):
        seen = observer.sites.pop((step.index, step.site), None)
        if seen is not None:
            passed.append(_MeanAttention.of(seen))
        if step.kind == "reduction" and (merge := _Merge.of(step.before.kept, step.after.kept)) is not None:
            passed.append(merge)
        state = step.after
    share = _read_by_classifier(backbone, state)
    for part in reversed(passed):
        share = 0.5 * share + 0.5 * part.moved(share) if isinstance(part, _MeanAttention) else part.undone(share)
    layout = next(part.layout for part in passed if isinstance(part, _MeanAttention))
    t, h, w = layout.grid
    return CellMap(share[:, _CELLS:].unflatten(1, (t, h, w)), layout.cell, backbone.input_spec)


def _read_by_classifier(backbone: Backbone, state: TokenState) -> Tensor:
    """Return the distribution (B, S) over the tokens that the classifier reads, uniform over the patches in them."""
    t, h, w = state.grid
    read = torch.zeros(state.batch, t * h * w + _CELLS, device=state.tokens.device)
    if backbone.reads_class_tokens:
        read[:, _CLASS_SLOT] = 1
        return read
    sizes = None if state.kept is None else state.kept.sizes
    cells = state.cell_numbers()
    read.scatter_(1, cells + _CELLS, torch.ones_like(cells, dtype=read.dtype) if sizes is None else sizes.to(read))
    read[:, :_CELLS] = 0
    return read / read.sum(dim=1, keepdim=True)


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
        reads: 1 where a token's row is read, 0 where it is a copy in the place of a dropped one, (B, G * n).
        copies: In how many groups the token of a slot stands and is read, (B, S).
        layout: The site's layout.
    """

    weights: Tensor | None
    slots: Tensor
    reads: Tensor
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
        reads = torch.ones_like(slots, dtype=nothing.dtype)
        if seen.layout.copies is not None:
            reads = reads.masked_fill(seen.layout.copies.expand(b, g, n).flatten(1), 0)
        copies = _added(nothing, slots, reads)
        return _MeanAttention(seen.attention.float().mean(dim=2) if h else None, slots, reads, copies, seen.layout)

    def moved(self, share: Tensor) -> Tensor:
        """Hand the share (B, S) of every token on to the tokens that it attends to."""
        if self.weights is None:
            return share
        b, g, n, _ = self.weights.shape
        held = ((share / self.copies.clamp(min=1)).gather(1, self.slots) * self.reads).view(b, g, 1, n)
        given = torch.matmul(held, self.weights).flatten(1)
        return _added(torch.where(self.copies > 0, 0.0, share), self.slots, given)


@dataclass(frozen=True)
class _Merge:
    """A place where tokens became parts of others.

    Attributes:
        token: Slot of the token that the one of each slot became part of, its own where it is none, (B, S).
        part: Share of that token's patches that were its own, (B, S); 1 where nothing was merged.
    """

    token: Tensor
    part: Tensor

    @staticmethod
    def of(before: KeptCells | None, after: KeptCells | None) -> _Merge | None:
        """Return what was merged between two states (None: of all cells); None where nothing was."""
        if after is None or after.merged_into is None or after is before:
            return None
        sizes_after = after.sizes_at_cells.float()
        sizes_before = torch.ones_like(sizes_after) if before is None else before.sizes_at_cells.float()
        merged = (after.merged_into >= 0) & (sizes_before > 0)
        own = torch.arange(after.count, device=merged.device)
        token = torch.where(merged, after.merged_into, own)
        part = torch.where(merged, sizes_before / sizes_after.gather(1, token).clamp(min=1), 1.0)
        slots = torch.arange(_CELLS, device=token.device).expand(len(token), -1)
        return _Merge(torch.cat((slots, token + _CELLS), dim=1), F.pad(part, (_CELLS, 0), value=1.0))

    def undone(self, share: Tensor) -> Tensor:
        """Hand the share (B, S) of every token back to those that were merged into it."""
        return share.gather(1, self.token) * self.part


def _added(values: Tensor, slots: Tensor, what: Tensor) -> Tensor:
    """Return values (B, S) with ``what`` (B, N) added at the slots (B, N)."""
    rows = torch.arange(len(values), device=values.device).unsqueeze(1)
    return values.index_put((rows, slots), what, accumulate=True)
