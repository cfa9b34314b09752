"""Occlusion: how much the class's probability falls when a part of the clip is gone.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2, with a box of
tubelets in the place of a grey square, and a base clip in the place of grey. Of a tubelet that several boxes cover, the
mean of their falls counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.attribution.scores import BATCH, class_probability
from sightline.explain.attribution.tubelets import BASES, check_base, tubelet_grid, tubelet_ids, with_tubelets
from sightline.explain.cell_map import CellMap


@dataclass(frozen=True)
class Occlusion(Method):
    """Occlusion of boxes of tubelets.

    Attributes:
        frames: Frames of tubelets of a box.
        size: Its rows and columns of tubelets.
        stride: Tubelets from one box to the next, in time and space; at most a box's length, or some stay uncovered.
        base: ``blur`` or ``freeze``.
    """

    name: ClassVar[str] = "occlusion"
    frames: int = 1
    size: int = 1
    stride: int = 1
    base: str = BASES[0]

    def __post_init__(self) -> None:
        check_base(self.base)
        if not 1 <= self.stride <= min(self.frames, self.size):
            raise ValueError(
                f"occlusion moves boxes by 1 to as many tubelets as they are long; got a stride of {self.stride} of "
                f"boxes of {self.frames} frames and {self.size}x{self.size}."
            )

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        grid, ids = tubelet_grid(backbone), tubelet_ids(tubelet_grid(backbone), backbone)
        boxes = box_masks(grid, (self.frames, self.size, self.size), self.stride).to(clips.device)
        maps = []
        for clip, target in zip(clips.unsqueeze(1), targets, strict=True):
            whole = class_probability(backbone, clip, target.view(1))
            falls = []
            for some in boxes.split(BATCH):
                lacking = with_tubelets(clip, ~some, ids, self.base)
                falls.append(whole - class_probability(backbone, lacking, target.expand(len(some))))
            weights = boxes.double()
            maps.append((torch.cat(falls) @ weights) / weights.sum(dim=0))
        values = torch.stack(maps).unflatten(1, grid)
        return Attribution(CellMap.over(values, backbone.input_spec), passes=Passes(forward=1 + len(boxes)))


def box_masks(grid: tuple[int, int, int], box: tuple[int, int, int], stride: int) -> Tensor:
    """Return which tubelets each box covers, bool (boxes, M); boxes go on to the grid's ends."""
    starts = []
    for cells, length in zip(grid, box, strict=True):
        last = max(cells - length, 0)
        starts.append([*range(0, last, stride), last])
    masks = torch.zeros(math.prod(map(len, starts)), *grid, dtype=torch.bool)
    for mask, (t, y, x) in zip(masks, product(*starts), strict=True):
        mask[t : t + box[0], y : y + box[1], x : x + box[2]] = True
    return masks.flatten(1)
