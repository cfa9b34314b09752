"""Parameters and multiply-adds of a backbone.

Multiply-adds follow the convention of fvcore's ``FlopCountAnalysis``, in which published sizes are given: one
multiply-add counts one; convolutions, linear layers and matrix products count, the products q k^T and A V of attention
among them; an affine LayerNorm counts 5 per element (4 without parameters); bias additions, softmax, activations and
other elementwise work count nothing.

The pass that is counted runs without data on PyTorch's ``meta`` device, where only shapes are computed, and with
unfused attention. So the count neither depends on which fused kernel a machine would choose (their counters differ, and
some have none) nor takes memory, and terms that a family folds into the fused call do not distort it. Where tokens are
dropped, what runs may depend on the clip: then real clips run, likewise unfused. It does not where every clip keeps
equally many tokens and attention runs among all that are left, or on literally filled groups.
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

from sightline.backbones import Backbone, Reducer
from sightline.backbones.parts.attention import counting
from sightline.export.latency import evaluating, example_clips


@dataclass(frozen=True)
class Cost:
    """What a model costs whatever machine it runs on.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one clip's forward pass; with a reducer, their mean over the clips they were counted on,
            rounded.
    """

    params: int
    macs: int


def percent_change(value: float, reference: float) -> float:
    """Return by how many percent a value differs from the reference; negative where it is smaller."""
    return 100.0 * (value - reference) / reference


def count_cost(backbone: Backbone, reducer: Reducer | None = None, clips: Tensor | None = None) -> Cost:
    """Count parameters and the multiply-adds of one clip, without touching the backbone.

    Args:
        backbone: On any device.
        reducer: Chooses the tokens to go on with. What runs may depend on the clip then, see `counts_by_shapes`; if
            so, multiply-adds are counted while clips run. Otherwise no clip is needed (about half a second).
        clips: The clips to count on, uint8 or float in [0, 1] (B, 3, T, H, W); one clip of noise if None, which is
            right only for a reducer that keeps equally many tokens of every clip. Unused where shapes tell all.

    Raises:
        ValueError: If the reducer cannot work with this backbone, or there is no clip.
    """
    params = sum(p.numel() for p in backbone.parameters())
    if reducer is None or counts_by_shapes(backbone, reducer):
        return Cost(params, count_macs(backbone, lambda twin, batch: twin(batch, reducer=reducer)))
    counts = macs_by_clip(backbone, reducer, example_clips(backbone, 1) if clips is None else clips)
    return Cost(params, round(sum(counts) / len(counts)))


def counts_by_shapes(backbone: Backbone, reducer: Reducer) -> bool:
    """Whether a reducer costs the same on every clip, so that shapes tell its multiply-adds."""
    same_attention = backbone.dropped_tokens == "left_out" or not reducer.attending.sparse
    return reducer.shapes_alone and reducer.equal_counts and same_attention


@torch.no_grad()
def macs_by_clip(backbone: Backbone, reducer: Reducer, clips: Tensor) -> list[int]:
    """Count the multiply-adds of every clip of a batch by itself, as it runs with a reducer.

    Raises:
        ValueError: If the reducer cannot work with this backbone, or there is no clip.
    """
    if not len(clips):
        raise ValueError("Multiply-adds with a token reduction are counted on clips; expected at least one, got none.")
    counts = []
    with counting(), evaluating([backbone]):
        for clip in clips.to(next(backbone.parameters()).device).split(1):
            with _counter() as counter:
                backbone(clip, reducer=reducer)
            counts.append(counter.get_total_flops() // 2)
    return counts


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
    with _counter() as counter:
        run(twin, batch)
    return counter.get_total_flops() // 2


def _counter() -> FlopCounterMode:
    """Return PyTorch's counter; it counts a multiply-add as two operations, the literature on video models as one."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: _layer_norm_flops})


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
