"""Grad-CAM on tokens: channels of a layer's tokens by how much the class's score grows with them.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2, with tokens in the place of a feature map's pixels:
the weight of a channel is the mean over the patches of the gradient of the class's logit; the map is the positive part
of the weighted sum of the channels.

Tokens are those that *enter* the layer (what stands before it, such as merging, has run): of what leaves the last one,
a classifier that reads the class token alone has no gradient at any patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone, TokenState, run_steps
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.site_maps import layer_at


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM.

    Attributes:
        layer: Original index; negative ones count from the last layer that exists.
    """

    name: ClassVar[str] = "grad_cam"
    needs_gradients: ClassVar[bool] = True
    layer: int = -1

    def check(self, backbone: Backbone) -> None:
        if not backbone.layers:
            raise ValueError("grad_cam needs at least one layer, got a backbone of which all are removed.")
        layer_at(backbone, self.layer)

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        layer = layer_at(backbone, self.layer)
        with torch.no_grad():
            state = backbone.run(backbone.embed(clips), 0, layer)
        entering: TokenState | None = None
        with torch.enable_grad():
            # Gradients start here: nothing before is differentiated, and frozen parameters need none.
            state = state.with_tokens(state.tokens.detach().requires_grad_())
            for step in run_steps(backbone, state, layer):
                if entering is None and step.site:
                    entering = step.before
                state = step.after
            assert entering is not None
            score = backbone.classify(state).gather(1, targets.unsqueeze(1)).sum()
            [gradient] = torch.autograd.grad(score, [entering.tokens])
        patches = entering.tokens[:, entering.class_tokens :].detach().float()
        weights = gradient[:, entering.class_tokens :].float().mean(dim=1, keepdim=True)
        values = (patches * weights).sum(dim=2).clamp(min=0).unflatten(1, entering.grid)
        behind = [info.index for info in backbone.layers if info.index >= layer]
        return Attribution(
            CellMap.over(values, backbone.input_spec),
            passes=Passes(forward=1, backward=len(behind) / len(backbone.layers)),
        )
