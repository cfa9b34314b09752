"""Attention maps of single heads, never averaged over heads.

A map has, for every cell of the clip, what its key receives of the head's softmax weights A (queries by keys), added up
over the queries that matter (`AttentionLayout.query_weights`, written by each family):

- TimeSformer, spatial: the class token's row, per frame. Temporal: for each place the sum over the rows of its T
  queries, that is, how much each frame is attended to there.
- Video Swin: the mean over the queries of each window. Queries that are padding are left out of it.
- MViT, and TimeSformer with joint attention: the class token's row, in MViT over the pooled keys.
- ViT: the mean over all queries.

What all cells receive together ("mass"), for attention that is uniform and for all other:

- TimeSformer, spatial: 1 per frame, less what the class token's key gets. Temporal: T per place, always (0 for a place
  of which no token is left).
- Video Swin: number of cells / cells per window, where nothing is padded.
- MViT and TimeSformer, joint: 1, less what the class token's key gets. ViT: 1, always.

Where tokens were merged, every patch that a token is made of has an equal part of what its key receives. In means and
sums over queries (ViT's, temporal), the row of a token counts as many times as it has patches.

Nothing is normalised afterwards: what goes to the class token or to padding is missing from the map, so that a head
that looks at neither place nor frame has a faint map.

Where MViT's maps are displaced: it pools by kernels of 3 around the first token of each stride, but its keys' cells are
those that tile the clip. So a cell's centre lies to the lower right of the centre of what its key was pooled from, by
half the cell less half a patch: in MViTv2-S 14 of 224 pixels, and 6 in layers 1, 3 and 14.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sightline.backbones import Backbone, Observation, Observer, Reducer, run_steps
from sightline.explain.cell_map import CellMap
from sightline.types import Unit


@torch.no_grad()
def head_maps(
    backbone: Backbone, clips: Tensor, heads: Sequence[Unit], reducer: Reducer | None = None
) -> dict[Unit, CellMap]:
    """Return the attention map of every head asked for, from one forward pass.

    Only the layers asked for compute their weights, one after the other, and only their maps are kept; what follows
    the last of them does not run. Memory grows with the batch, by the weights of one layer and two to three times that
    while they are computed; these are 118 MB per clip in the first layer of Video Swin-S and in all of ViT-B.

    Args:
        backbone: In evaluation mode; may be pruned.
        clips: (B, 3, T, H, W), uint8 or float in [0, 1].
        heads: By original indices of layer and head, from any sites.
        reducer: Chooses the tokens to go on with; cells whose tokens were dropped are 0 in the map, except in families
            that pool keys from the filled grid (MViT).

    Raises:
        ValueError: If a head or layer does not exist, or the backbone is in training mode.
    """
    check_heads(backbone, heads)
    require_evaluation(backbone)
    found: dict[Unit, CellMap] = {}
    layers = {unit.layer for unit in heads}
    observer = Observer(attention=True, layers=layers)
    state = backbone.embed(clips, reducer)
    for step in run_steps(backbone, state, 0, max(layers, default=-1) + 1, observer=observer, reducer=reducer):
        seen = observer.sites.pop((step.index, step.site), None)  # so that the weights of one site alone are kept
        if seen is None:
            continue
        for unit in heads:
            if (unit.layer, unit.site) == (step.index, step.site):
                found[unit] = _head_map(backbone, seen, unit)
    return {unit: found[unit] for unit in heads}


def _head_map(backbone: Backbone, seen: Observation, unit: Unit) -> CellMap:
    assert seen.attention is not None
    assert seen.layout is not None
    [existing] = (s.heads for i in backbone.layers if i.index == unit.layer for s in i.sites if s.name == unit.site)
    attention = seen.attention[:, :, existing.index(unit.head)].float()
    received = torch.matmul(seen.layout.query_weights.unsqueeze(2), attention).squeeze(2)  # (B, G, k)
    return CellMap.of_keys(received, seen.layout, backbone.input_spec)


def check_heads(backbone: Backbone, heads: Iterable[Unit]) -> None:
    """Raise ValueError, naming what exists, where a head does not exist (any more)."""
    layers = {info.index: {site.name: site.heads for site in info.sites} for info in backbone.layers}
    for unit in heads:
        if unit.is_layer:
            raise ValueError(f"A map belongs to one head, got {unit}; name its site and head too.")
        if unit.layer not in layers:
            raise ValueError(f"{backbone.family} has no layer {unit.layer}; its layers are {_listed(layers)}.")
        sites = layers[unit.layer]
        if unit.site not in sites:
            names = " and ".join(map(repr, sites))
            raise ValueError(f"Layer {unit.layer} of {backbone.family} has no site {unit.site!r}; it has {names}.")
        if unit.head not in sites[unit.site]:
            raise ValueError(
                f"{backbone.family} has no {unit}; the heads there are {_listed(sites[unit.site]) or 'all removed'}."
            )


def require_evaluation(backbone: Backbone) -> None:
    """Raise ValueError in training mode, in which stochastic depth makes every pass another."""
    if backbone.training:
        raise ValueError("Attention is shown in evaluation mode, got a backbone in training mode; call eval() first.")


def _listed(indices: Iterable[int]) -> str:
    return ", ".join(map(str, indices))
