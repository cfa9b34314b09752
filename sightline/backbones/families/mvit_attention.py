"""Pooling attention of MViTv2: queries, keys and values are pooled over the grid before they meet.

Source: Fan et al., "Multiscale Vision Transformers", 2021, section 3.1 (pooling attention); Li et al., "MViTv2", 2022,
section 4.1, equations 2 to 4 (relative positions, residual pooling). Parameters bear torchvision's names.

Deviations (the numbers are torchvision's but for rounding):
- Heads are pooled as further channels of one depthwise convolution instead of as further clips: tokens then lie as the
  convolution wants them (channels last), which is two to four times as fast on a CPU.
- Relative positions are folded into queries and keys (`sightline.backbones.parts.relative_positions`), so that
  attention is fused, in training too.

Shapes: B clips, N patches before and N' after pooling, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.state import take_rows
from sightline.backbones.families.mvit_config import LayerShape, pooled_size
from sightline.backbones.parts.attention import attention, attention_with_weights, only_counts
from sightline.backbones.parts.linear import linear, smaller_linear
from sightline.backbones.parts.relative_positions import (
    Size3,
    Terms,
    fold,
    key_cells,
    query_terms,
    relative_bias,
    relative_rows,
    resized,
    table_rows,
)

KERNEL = 3
layer_norm = partial(nn.LayerNorm, eps=1e-6)


class Pool(nn.Module):
    """Depthwise convolution of the patches, shared by all heads, and LayerNorm of patches and class token."""

    def __init__(self, head_width: int, stride: Size3) -> None:
        super().__init__()
        self.stride = stride
        self.pool = nn.Conv3d(
            head_width, head_width, KERNEL, stride, padding=KERNEL // 2, groups=head_width, bias=False
        )
        self.norm_act = nn.Sequential(layer_norm(head_width))

    def forward(self, x: Tensor, grid: Size3) -> tuple[Tensor, Tensor]:
        """Pool the heads of all tokens, (B, 1 + N, h * d): class tokens (B, 1, h, d), patches (B, N', h, d)."""
        b, _, channels = x.shape
        d = self.pool.out_channels
        heads = channels // d
        if not heads:
            t, h, w = pooled_size(grid, self.stride)
            return x.new_empty(b, 1, 0, d), x.new_empty(b, t * h * w, 0, d)
        patches = x[:, 1:].reshape(b, *grid, channels).permute(0, 4, 1, 2, 3)
        weight = self.pool.weight.repeat(heads, 1, 1, 1, 1)
        patches = F.conv3d(patches, weight, stride=self.stride, padding=KERNEL // 2, groups=channels)
        patches = patches.permute(0, 2, 3, 4, 1).reshape(b, -1, heads, d)
        return self.norm_act(x[:, :1].reshape(b, 1, heads, d)), self.norm_act(patches)


class MultiscaleAttention(nn.Module):
    """Pooling attention up to its output projection, which `project` holds.

    Attributes:
        heads: Original indices of the heads that exist.
        query_heads: How many heads' queries exist. A removed head's query stays where the residual does.
    """

    distance_h: Tensor
    distance_w: Tensor
    distance_t: Tensor
    key_cells: Tensor

    def __init__(self, shape: LayerShape, residual_follows_head: bool) -> None:
        super().__init__()
        self.shape = shape
        self.residual_follows_head = residual_follows_head
        self.heads = tuple(range(shape.heads))
        self.query_heads = shape.heads
        self.head_width = shape.width // shape.heads
        self.qkv = nn.Linear(shape.width_in, 3 * shape.width)
        self.project = nn.Sequential(nn.Linear(shape.width, shape.width))
        self.pool_q = Pool(self.head_width, shape.stride_q)
        self.pool_k = Pool(self.head_width, shape.stride_kv)
        self.pool_v = Pool(self.head_width, shape.stride_kv)
        for name, rows in (("h", shape.spatial_rows()), ("w", shape.spatial_rows()), ("t", shape.temporal_rows())):
            table = nn.init.trunc_normal_(torch.empty(rows, self.head_width), std=0.02)
            self.register_parameter(f"rel_pos_{name}", nn.Parameter(table))
        # What depends on sizes only: buffers, so that they follow the module, outside of the state dict.
        for name, queries, keys in zip("thw", shape.grid_after, shape.key_grid, strict=True):
            self.register_buffer(f"distance_{name}", relative_rows(queries, keys), persistent=False)
        self.register_buffer("key_cells", key_cells(shape.key_grid, self.head_width), persistent=False)

    @property
    def places(self) -> tuple[int, ...] | None:
        """Where the heads that exist stand among those that the queries exist of; None where these are the same."""
        return None if len(self.heads) == self.query_heads else self.heads

    def forward(
        self,
        x: Tensor,
        stepwise: bool = False,
        keep_keys: bool = False,
        filling: Tensor | None = None,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        """Attend among normalised tokens, of all cells once dropped ones are filled.

        Args:
            x: (B, 1 + N, D), the class token first.
            stepwise: Also return the attention weights, (B, 1, h, 1 + N', 1 + M).
            keep_keys: Also return the keys, (B, 1, h, 1 + M, d).
            filling: Which of these tokens stands for the class token and for every cell, where some were dropped.
            features: What to return of the pooled keys and values besides, (B, 1 + M, h, d).
        """
        h, d = len(self.heads), self.head_width
        qkv = self.qkv(x) if filling is None else take_rows(self.qkv(x), filling)
        q, k, v = qkv.split((self.query_heads * d, h * d, h * d), dim=-1)
        q_class, q_patches = self.pool_q(q, self.shape.grid)
        keys, values = self._pooled(k, v)
        residual = F.pad(q_patches, (0, 0, 0, 0, 1, 0))  # the class token gets none
        if self.places is not None:
            places = torch.tensor(self.places, dtype=torch.long, device=x.device)
            q_class, q_patches = q_class.index_select(2, places), q_patches.index_select(2, places)
        queries = torch.cat((q_class, q_patches), dim=1)
        heads, weights = self._attend(queries, q_patches, keys, values, stepwise)
        pooled = {"keys": keys, "values": values}
        found = HeadOutputs(
            heads,
            residual,
            self.places,
            attention=weights,
            keys=keys.unsqueeze(1) if keep_keys else None,
            features={name: pooled[name].transpose(1, 2) for name in features},
        )
        if self.residual_follows_head:
            return replace(found, heads=heads + residual, residual=None, places=None)
        return found

    def attend_class(self, x: Tensor, filling: Tensor | None = None) -> HeadOutputs:
        """Attend from the class token alone, which knows no relative positions and gets no residual."""
        h, d = len(self.heads), self.head_width
        queries = self.query_heads * d
        weight, bias = self.qkv.weight, self.qkv.bias
        kv = linear(x, weight[queries:], bias[queries:])
        k, v = (kv if filling is None else take_rows(kv, filling)).chunk(2, dim=-1)
        keys, values = self._pooled(k, v)
        q = linear(x[:, :1], weight[:queries], bias[:queries]).view(x.shape[0], 1, self.query_heads, d)
        q = self.pool_q.norm_act(q if self.places is None else q[:, :, list(self.places)])
        out = attention(q.transpose(1, 2), keys, values).transpose(1, 2) if h else q
        residual = None if self.residual_follows_head else out.new_zeros(x.shape[0], 1, self.query_heads, d)
        return HeadOutputs(out, residual, self.places if residual is not None else None, class_only=True)

    def _pooled(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Pool keys and values, (B, 1 + N, h * d) -> (B, h, 1 + M, d)."""
        (k_class, k_patches), (v_class, v_patches) = (
            pool(part, self.shape.grid) for pool, part in ((self.pool_k, k), (self.pool_v, v))
        )
        keys = torch.cat((k_class, k_patches), dim=1).transpose(1, 2)
        return keys, torch.cat((v_class, v_patches), dim=1).transpose(1, 2)

    def _attend(
        self, queries: Tensor, patches: Tensor, keys: Tensor, values: Tensor, stepwise: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return A V of every head, (B, 1 + N', h, d), and the weights A, (B, 1, h, 1 + N', 1 + M), if asked for."""
        scale = self.head_width**-0.5
        if not self.heads:
            return queries, torch.matmul(queries.transpose(1, 2), keys.transpose(2, 3)).unsqueeze(
                1
            ) if stepwise else None
        terms = self._terms(patches)
        if stepwise or only_counts(queries):  # those of the fold would distort the count
            b, m, h = queries.shape[:3]
            out, weights = attention_with_weights(
                queries.transpose(1, 2), keys, values, relative_bias(terms), scale, (b, 1, h, m, keys.shape[2])
            )
            return out.transpose(1, 2), weights
        out = attention(*fold(queries, keys, values, terms, self.key_cells, scale), scale=1.0)
        return out.transpose(1, 2)[..., : self.head_width], None

    def _terms(self, patches: Tensor) -> Terms:
        """Multiply the pooled queries (B, N', h, d) with the relative positions."""
        after, key_grid = self.shape.grid_after, self.shape.key_grid
        tables = []
        for name, queries, keys in zip("thw", after, key_grid, strict=True):
            table = resized(getattr(self, f"rel_pos_{name}"), table_rows(queries, keys))
            tables.append(table[getattr(self, f"distance_{name}")])
        time, height, width = tables
        cells = patches.view(patches.shape[0], *after, *patches.shape[2:])
        return query_terms(cells, height, width, time)

    @property
    def projection(self) -> nn.Linear:
        """The output projection."""
        projection = self.project[0]
        assert isinstance(projection, nn.Linear)
        return projection

    def columns(self, position: int) -> slice:
        """Columns of the output projection that the head at this position is read by."""
        place = position if self.places is None else self.places[position]
        return slice(place * self.head_width, (place + 1) * self.head_width)

    def remove_heads(self, positions: Collection[int]) -> None:
        """Delete keys and values of the heads at these positions, and where no residual stays, all else of them."""
        d = self.head_width
        kept = [i for i in range(len(self.heads)) if i not in set(positions)]
        columns = torch.tensor([i * d + c for i in kept for c in range(d)], dtype=torch.long)
        queries = columns if self.residual_follows_head else torch.arange(self.query_heads * d)
        first_key = self.query_heads * d
        first_value = first_key + len(self.heads) * d
        self.qkv = smaller_linear(self.qkv, rows=torch.cat((queries, first_key + columns, first_value + columns)))
        if self.residual_follows_head:
            self.project[0] = smaller_linear(self.projection, columns=columns)
            self.query_heads = len(kept)
        self.heads = tuple(self.heads[i] for i in kept)
