"""Integrated gradients: what every pixel adds to the class's probability on the way from a base clip to the clip.

Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 3, on the straight
line between a base clip and the clip, by the midpoint rule; values of a pixel's colours are added up. All values
together are the difference between the two clips' probabilities, but for the rule's error.

The base is the blurred clip, or its first frame standing still, see `sightline.explain.attribution.tubelets`; the
paper's black frame is a picture of its own that a driver's camera does see at night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.attribution.tubelets import BASES, as_pixels, base_clips, check_base
from sightline.explain.cell_map import CellMap


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Integrated gradients.

    Attributes:
        steps: Points on the line.
        base: ``blur`` or ``freeze``.
    """

    name: ClassVar[str] = "integrated_gradients"
    needs_gradients: ClassVar[bool] = True
    steps: int = 32
    base: str = BASES[0]

    def __post_init__(self) -> None:
        check_base(self.base)
        if self.steps < 1:
            raise ValueError(f"integrated_gradients takes at least one step, got {self.steps}.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        pixels, base = as_pixels(clips), base_clips(clips, self.base)
        total = torch.zeros_like(pixels)
        for step in range(self.steps):
            point = torch.lerp(base, pixels, (step + 0.5) / self.steps).requires_grad_()
            with torch.enable_grad():
                score = backbone(point).softmax(dim=1).gather(1, targets.unsqueeze(1)).sum()
                total += torch.autograd.grad(score, point)[0]
        values = ((pixels - base) * total / self.steps).sum(dim=1)
        return Attribution(CellMap.over(values, backbone.input_spec), passes=Passes(self.steps, self.steps))
