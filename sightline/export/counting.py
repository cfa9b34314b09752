"""Parameters and multiply-adds of a backbone.

Multiply-adds follow the convention of fvcore's ``FlopCountAnalysis``, in which published sizes are given: one
multiply-add counts one; convolutions, linear layers and matrix products count, the products q k^T and A V of attention
among them; an affine LayerNorm counts 5 per element (4 without parameters); bias additions, softmax, activations and
other elementwise work count nothing.

The pass that is counted runs without data on PyTorch's ``meta`` device, where only shapes are computed, and with
unfused attention. So the count neither depends on which fused kernel a machine would choose (their counters differ, and
some have none) nor takes memory, and terms that a family folds into the fused call do not distort it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.backbones import Backbone


@dataclass(frozen=True)
class Cost:
    """What a model costs whatever machine it runs on.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one clip's forward pass.
    """

    params: int
    macs: int


def percent_change(value: float, reference: float) -> float:
    """Return by how many percent a value differs from the reference; negative where it is smaller."""
    return 100.0 * (value - reference) / reference


def count_cost(backbone: Backbone) -> Cost:
    """Count parameters and the multiply-adds of one clip, without touching the backbone (about half a second)."""
    macs = count_macs(backbone, lambda twin, clips: twin(clips))
    return Cost(sum(p.numel() for p in backbone.parameters()), macs)


@torch.no_grad()
def count_macs(backbone: Backbone, run: Callable[[Backbone, Tensor], object], clips: int = 1) -> int:
    """Count the multiply-adds of anything that is run with a backbone.

    Args:
        backbone: Stays as it is.
        run: Called with a copy in evaluation mode and a batch, both on the meta device.
        clips: Clips of that batch.
    """
    twin = _meta_copy(backbone).eval()
    spec = backbone.input_spec
    batch = torch.empty(clips, 3, spec.frames, spec.height, spec.width, dtype=torch.uint8, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: _layer_norm_flops})
    with counter:
        run(twin, batch)
    # PyTorch counts a multiply-add as two operations, the literature on video transformers as one.
    return counter.get_total_flops() // 2


def _meta_copy(backbone: Backbone) -> Backbone:
    """Copy a backbone's structure with tensors that have a shape but no data, so that the copy takes no memory."""
    memo: dict[int, Any] = {}
    for parameter in backbone.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in backbone.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(backbone, memo)


def _layer_norm_flops(
    shape: Sequence[int], normalized: Sequence[int], weight: Sequence[int] | None = None, *_: Any, **__: Any
) -> int:
    """Count twice what fvcore counts for a LayerNorm, because everything is halved afterwards."""
    return 2 * math.prod(shape) * (4 if weight is None else 5)
