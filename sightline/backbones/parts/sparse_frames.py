"""Attention within the frames of a grid of which some cells have no token, at the class token and the cells that have.

Where dropped cells are filled, a filled cell's key and value are copies of a token's, and nobody reads what comes out
at it. So the queries of a frame are its copy of the class token and its own tokens, and its keys these and whatever
tokens fill its cells, each once, with the logarithm of the number of cells added to its logit: a sum of equal terms of
the softmax. Those can be tokens of other frames, where a frame has none of its own or patches were merged.

Shapes: B clips, T frames, K kept tokens behind one class token, Q queries and M keys of all frames after padding, h
heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.parts.grouped_attention import (
    Call,
    GroupPlan,
    Members,
    Part,
    attend_in_groups,
    in_places,
    plan_groups,
)


@dataclass(frozen=True)
class FramePlan:
    """How the tokens that are left attend within frames.

    Attributes:
        groups: A group is a frame of a clip. Rows are counted clip by clip over the 1 + K tokens.
        key_bias: What is added to the logits of every key, (M,); minus infinity for padding.
        places: Where among the Q each result stands: the class token's copies, frame by frame, then the tokens, int64
            (B, T + K); -1 for tokens that do not exist. Of the class token's copies alone (B, T).
    """

    groups: GroupPlan
    key_bias: Tensor
    places: Tensor


def frame_plan(kept: KeptCells, width: int, class_only: bool = False) -> FramePlan:
    """Return the plan of frames for the cells that are kept, made once for each.

    Args:
        kept: Of tokens that stand behind one class token.
        width: That of all heads together.
        class_only: Whether nothing is read but the class token's copies. A row of the queries is then a clip.
    """

    def build() -> FramePlan:
        (b, k), t, device = kept.cells.shape, kept.grid[0], kept.cells.device
        # How many cells of a frame each token fills; the class token stands in every frame once.
        filling = kept.nearest.view(b * t, -1)
        counts = torch.zeros(b * t, k, dtype=torch.int64, device=device)
        counts = F.pad(counts.scatter_add(1, filling, torch.ones_like(filling)), (1, 0), value=1)
        keys, key_times = _members(counts, t)
        if class_only:
            clips = torch.arange(b, device=device).repeat_interleave(t)
            queries, slots = Members(clips, torch.ones_like(clips)), torch.arange(b * t, device=device)
        else:
            frame = torch.where(kept.cells < 0, t, kept.cells // (kept.count // t))
            own = F.one_hot(frame, t + 1)[:, :, :t].transpose(1, 2).reshape(b * t, k)
            queries, _ = _members(F.pad(own, (1, 0), value=1), t)
            clip, token = queries.rows // (1 + k), queries.rows % (1 + k)
            # One frame after the other has its copy of the class token first.
            frames = torch.arange(b * t, device=device).repeat_interleave(queries.counts) % t
            slots = clip * (t + k) + torch.where(token == 0, frames, t - 1 + token)
        plan = plan_groups(queries, keys, [0] * (b * t), [kept.count // t] * (b * t), width)
        bias = key_times.float().log()[plan.key_source].masked_fill(plan.key_source < 0, -torch.inf)
        places = torch.full((b * (t if class_only else t + k),), -1, dtype=torch.int64, device=device)
        return FramePlan(plan, bias, places.index_copy(0, slots, plan.outputs).view(b, -1))

    return kept.plan(("frames", width, class_only), build)


def attend_in_frames(
    queries: Tensor, keys_values: Tensor, shape: tuple[int, int], plan: FramePlan, some_missing: bool
) -> Tensor:
    """Return H_h of every head at the places of a plan, (B, L, h, d).

    Args:
        queries: (B, 1 + K, h * d); (B, 1, h * d), those of the class token, where nothing else is read.
        keys_values: Keys and values side by side, (B, 1 + K, 2 * h * d).
        shape: Number of heads h and width of each d.
        plan: Of `frame_plan`.
        some_missing: Whether some tokens do not exist.
    """
    key_bias = plan.key_bias.to(queries.dtype)

    def bias(call: Call, part: Part) -> Tensor:
        return key_bias[part.keys].view(call.groups, 1, 1, call.keys)

    found = attend_in_groups(queries.flatten(0, 1), keys_values.flatten(0, 1), shape, plan.groups, bias)
    return in_places(found, plan.places, some_missing)


def _members(times: Tensor, frames: int) -> tuple[Members, Tensor]:
    """Return what stands in each frame by how many times it does, int64 (B * T, 1 + K), and these numbers, (I,)."""
    frame, token = torch.nonzero(times, as_tuple=True)
    return Members(frame // frames * times.shape[1] + token, (times > 0).sum(dim=1)), times[frame, token]
