"""GradNorm: how much the loss of a clip's label depends on each token, summed over the layers.

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023 (equation 7): the sum
over layers of the L1 norm of dL/dX at each token, L the cross-entropy of the label, in the model with all its tokens.

What the paper leaves open:

- X is what *enters* a layer. Of what leaves the last layer, a classifier that reads class tokens alone has no gradient
  at any patch, and one that reads the mean the same at all.
- Grids that change between stages: a token of a coarser grid is shared out evenly among the cells of the embedding's
  grid that it covers (by their corners), so that a layer counts as much as it would on its own grid.
- Class tokens lie nowhere: what depends on them alone is no part of the map.

Shapes: B clips, N tokens, D width, C cells of the embedding's grid.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone, TokenState, run_steps
from sightline.explain.cell_map import CellMap, cells_within
from sightline.explain.methods.head_maps import require_evaluation


def grad_norm(backbone: Backbone, clips: Tensor, labels: Tensor) -> CellMap:
    """Return the GradNorm of every cell of the embedding's grid, by one forward and one backward pass.

    Args:
        backbone: In evaluation mode; its parameters may be frozen. Runs with all tokens.
        clips: (B, 3, T, H, W), uint8 or float in [0, 1].
        labels: int64 (B,).

    Raises:
        ValueError: If no layer is left, or the backbone is in training mode.
    """
    require_evaluation(backbone)
    if not backbone.layers:
        raise ValueError("GradNorm needs at least one layer, got a backbone of which all are removed.")
    entering: list[TokenState] = []
    with torch.enable_grad():
        state = backbone.embed(clips)
        # Gradients start at the tokens, so that frozen parameters need none.
        state = first = state.with_tokens(state.tokens.detach().requires_grad_())
        for step in run_steps(backbone, state):
            if step.layer is not None and step.site == step.layer.sites[0].name:
                entering.append(step.before)
            state = step.after
        # In double precision: in single, the gradient at the label's logit is 0 once its probability rounds to 1.
        loss = F.cross_entropy(backbone.classify(state).double(), labels.to(clips.device), reduction="sum")
        # Clips do not influence each other: the gradient of the sum is that of each clip's own loss.
        gradients = torch.autograd.grad(loss, [state.tokens for state in entering])
    total = torch.zeros(len(clips), math.prod(first.grid), device=clips.device)
    for state, gradient in zip(entering, gradients, strict=True):
        norms = gradient[:, state.class_tokens :].float().abs().sum(dim=2)
        inside = cells_within(first.grid, state.grid, clips.device)
        total += (norms / inside.bincount(minlength=norms.shape[1]))[:, inside]
    return CellMap(total.unflatten(1, first.grid), _embedded_cell(backbone, first, entering[0]), backbone.input_spec)


def _embedded_cell(backbone: Backbone, first: TokenState, entering: TokenState) -> tuple[int, int, int]:
    """Return the frames, rows and columns that a cell of the embedding's grid covers."""
    layer = next(iter(backbone.layer_modules().values()))
    layout = layer.layout(entering, layer.sites[0].name)  # its keys may lie on a coarser grid
    t, h, w = (
        size // -(-cells // coarse) for size, cells, coarse in zip(layout.cell, first.grid, layout.grid, strict=True)
    )
    return t, h, w
