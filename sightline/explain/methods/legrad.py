"""LeGrad: how the class's score, read off after each layer, would grow with that layer's attention.

Source: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
2024 (arXiv 2404.03214), equations 5 to 9: for every layer, the classifier is applied to that layer's own output; the
gradient of its score with respect to that layer's attention, negative parts zero, is averaged over heads and queries;
the layers' maps are added up.

What the paper does not cover, and how it is done here:

- The classifier reads what it would read of the last layer: the class token, or the mean of all, after the last norm.
- Layers whose tokens have another width or grid than the last's (earlier stages of Video Swin and MViT) have no score
  that this classifier could read, and are left out.
- Both sites of a layer (divided TimeSformer) count. Keys that lie nowhere are left out; the map is not scaled to 0..1,
  which changes no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone, Observer, TokenState, run_steps
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.relevant_heads import added


@dataclass(frozen=True)
class LeGrad(Method):
    """LeGrad of Bousselham et al."""

    name: ClassVar[str] = "legrad"
    needs_gradients: ClassVar[bool] = True

    def check(self, backbone: Backbone) -> None:
        if not backbone.units("heads"):
            raise ValueError("legrad needs at least one head, got a backbone of which all are removed.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        layers = _layers_run(backbone, clips)
        last = layers[-1][2]
        read = [(i, before) for i, before, after in layers if _shape(after) == _shape(last)]
        maps: list[CellMap] = []
        for index, state in read:
            observer = Observer(attention=True, layers={index})
            with torch.enable_grad():
                start = state.with_tokens(state.tokens.detach().requires_grad_())
                after = backbone.run(start, index, index + 1, observer=observer)
                score = backbone.classify(after).gather(1, targets.unsqueeze(1)).sum()
                seen = [one for one in observer.sites.values() if one.attention is not None and one.attention.shape[2]]
                weights = [one.attention for one in seen if one.attention is not None]
                gradients = torch.autograd.grad(score, weights, allow_unused=True)
            for one, gradient in zip(seen, gradients, strict=True):
                if gradient is not None and one.layout is not None:
                    received = gradient.float().clamp(min=0).mean(dim=(2, 3))  # over heads and queries: (B, G, k)
                    maps.append(CellMap.of_keys(received, one.layout, backbone.input_spec))
        share = len(read) / len(backbone.layers)
        return Attribution(added(maps), passes=Passes(forward=1 + share, backward=share))


@torch.no_grad()
def _layers_run(backbone: Backbone, clips: Tensor) -> list[tuple[int, TokenState, TokenState]]:
    """Return every layer's index, and the states before it (and what stands before it) and after it."""
    found: dict[int, tuple[TokenState, TokenState]] = {}
    for step in run_steps(backbone, backbone.embed(clips)):
        if step.layer is not None:
            before = found[step.index][0] if step.index in found else step.before
            found[step.index] = before, step.after
    return [(index, *states) for index, states in found.items()]


def _shape(state: TokenState) -> tuple[object, ...]:
    return state.grid, state.tokens.shape
