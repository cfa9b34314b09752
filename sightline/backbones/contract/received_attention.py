"""What every token receives of a layer's attention.

Shapes: B clips, N tokens, G groups, h heads, q queries and k keys of a group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.layout import coarser_cells

if TYPE_CHECKING:
    from sightline.backbones.contract.layer import Layer
    from sightline.backbones.contract.state import TokenState


def received_attention(layer: Layer, state: TokenState) -> Tensor:
    """Return what every token receives in the last site of a layer, mean over heads, (B, N).

    Which queries count is what the site's layout says for a map: the class token's, or where there is none the mean
    over all. Class tokens receive 0 here. Where keys are coarser than tokens, every token has what its key receives.

    Args:
        layer: With at least one head in its last site.
        state: Before the layer; only its last site is computed.
    """
    site = layer.sites[-1].name
    outputs, layout = layer.attend(state, site, weights=True), layer.layout(state, site)
    assert outputs.attention is not None
    read = layout.query_weights.to(outputs.attention.dtype)
    received = torch.einsum("bgq,bghqk->bgk", read.expand(state.batch, -1, -1), outputs.attention)
    received = received / outputs.attention.shape[2]
    t, h, w = layout.grid
    spare = t * h * w  # a place for the keys that lie nowhere
    cells = torch.where(layout.cells < 0, spare, layout.cells).expand(received.shape).flatten(1)
    by_cell = received.new_zeros(received.shape[0], spare + 1).scatter_add(1, cells, received.flatten(1))
    own = state.cell_numbers()
    own = own if layout.grid == state.grid else coarser_cells(own, state.grid, layout.grid)
    by_token = by_cell.gather(1, torch.where(own < 0, spare, own))
    return F.pad(by_token, (state.class_tokens, 0))
