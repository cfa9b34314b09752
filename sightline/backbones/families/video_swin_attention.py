"""Window attention of Video Swin: its parameters, the biases built from them, and its ways of attending.

Source: Liu et al., "Video Swin Transformer", 2021, section 3; names and numbers are torchvision's.

Shapes: B clips, W windows, n cells per window, K kept tokens, m places of a region, h heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.parts.attention import attention, attention_with_weights
from sightline.backbones.parts.linear import smaller_linear
from sightline.backbones.parts.sparse_windows import attend_in_windows, copied_biases, distinct_biases, window_plan
from sightline.backbones.parts.weight_cache import WeightCache
from sightline.backbones.parts.window_regions import regions
from sightline.backbones.parts.windows import Size3, WindowGeometry, relative_position_index, shift_mask


class WindowAttention(nn.Module):
    """Attention within windows, from queries, keys and values to heads; parameters have torchvision's names."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: Size3) -> None:
        super().__init__()
        self.window = window
        self.heads = tuple(range(heads))
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        index = relative_position_index(window)
        table = torch.empty(math.prod(2 * w - 1 for w in window), heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", index.clone())
        self._kept_bias: WeightCache[Tensor] = WeightCache()
        self._kept_biases: WeightCache[list[Tensor]] = WeightCache()

    def attend(self, qkv: Tensor, geometry: WindowGeometry, weights: bool, keys: bool) -> HeadOutputs:
        """Attend within whole windows; heads are (B, W * n, h, d).

        Args:
            qkv: Queries, keys and values side by side, (B, W * n, 3 * h * d), in the order of windows.
            geometry: How the grid is cut.
            weights: Also return the softmax weights; attention is not fused then.
            keys: Also return the keys.
        """
        b, w, n, h = qkv.shape[0], geometry.count, geometry.volume, len(self.heads)
        d = self.head_width  # named everywhere: where no head is left, no size can be inferred
        qkv = qkv.view(b, w, n, 3, h, d).permute(3, 0, 1, 4, 2, 5)  # (3, B, W, h, n, d)
        # Four dimensions, because only these are fused: windows count as heads where each has its own mask.
        fold = (b, w * h) if geometry.shifted else (b * w, h)
        q, k, v = (part.reshape(*fold, n, part.shape[-1]) for part in qkv)
        bias, found = self.bias(geometry), None
        if weights:
            out, found = attention_with_weights(q, k, v, bias, shape=(b, w, h, n, n))
        else:
            out = attention(q, k, v, bias)
        heads = out.view(b, w, h, n, d).transpose(2, 3).reshape(b, w * n, h, d)
        return HeadOutputs(heads, attention=found, keys=qkv[1] if keys else None)

    def attend_kept(self, qkv: Tensor, kept: KeptCells, geometry: WindowGeometry) -> Tensor:
        """Return the heads at the tokens that are left, (B, K, h, d): those of filled windows, for less.

        Args:
            qkv: Queries, keys and values side by side, (B, K, 3 * h * d); where the grid is padded, (B, K + 1, ...)
                with those of a token of zeros behind them.
            kept: Which cells are left.
            geometry: How the grid is cut.
        """
        # All layers of a stage share a plan, also those that have lost heads.
        plan = window_plan(kept, geometry, self.proj.out_features)
        shape = (len(self.heads), self.head_width)
        if plan.distinct is None:
            bias = copied_biases(plan.bias_rows, self.region_biases(geometry))
        else:
            index = self.relative_position_index[: geometry.volume, : geometry.volume]
            bias = distinct_biases(plan.distinct, self.relative_position_bias_table, index)
        return attend_in_windows(qkv, shape, plan, bias, kept.exists is not None)

    def features(
        self, qkv: Tensor, wanted: Collection[Feature], in_order: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Take out of queries, keys and values, (B, L, 3 * h * d), what is wanted by token, (B, N, h, d)."""
        h, d = len(self.heads), self.head_width
        starts: dict[Feature, int] = {"queries": 0, "keys": h * d, "values": 2 * h * d}
        return {name: in_order(qkv[:, :, starts[name] :][:, :, : h * d]).unflatten(2, (h, d)) for name in wanted}

    def bias(self, geometry: WindowGeometry) -> Tensor:
        """What is added to the logits: (1, h, n, n), or (1, W * h, n, n) where windows are shifted.

        Without gradients it is kept until the table changes. `train` drops it too, because not every optimiser's
        kernel counts a tensor's versions.
        """
        table = self.relative_position_bias_table
        return self._kept_bias.of([table], lambda: self._build_bias(geometry), geometry)

    def region_biases(self, geometry: WindowGeometry) -> list[Tensor]:
        """What is added to the logits within each kind of `regions`, (m, h, m), queries first; kept as `bias` is."""
        table = self.relative_position_bias_table
        return self._kept_biases.of([table], lambda: self._build_region_biases(geometry), geometry)

    def _pairs(self, geometry: WindowGeometry) -> Tensor:
        """Return the bias of every pair of cells of a window, (n, n, h)."""
        n = geometry.volume
        return self.relative_position_bias_table[self.relative_position_index[:n, :n].reshape(-1)].view(n, n, -1)

    def _build_bias(self, geometry: WindowGeometry) -> Tensor:
        n = geometry.volume
        bias = self._pairs(geometry).permute(2, 0, 1).contiguous()
        if not geometry.shifted:
            return bias.unsqueeze(0)
        mask = shift_mask(geometry, bias.device).to(bias.dtype)
        return (mask.unsqueeze(1) + bias.unsqueeze(0)).view(1, -1, n, n)

    def _build_region_biases(self, geometry: WindowGeometry) -> list[Tensor]:
        pairs = self._pairs(geometry)
        sets = regions(geometry, pairs.device).kind_places
        return [pairs[places[:, None], places].transpose(1, 2).contiguous() for places in sets]

    def remove_heads(self, positions: Collection[int]) -> None:
        """Delete the parameters of the heads at these positions."""
        width = self.head_width
        kept = [i for i in range(len(self.heads)) if i not in set(positions)]
        columns = torch.cat([torch.arange(i * width, (i + 1) * width) for i in kept] or [torch.arange(0)])
        rows = torch.cat([columns + part * len(self.heads) * width for part in range(3)])
        self.qkv = smaller_linear(self.qkv, rows=rows)
        self.proj = smaller_linear(self.proj, columns=columns)
        self.relative_position_bias_table = nn.Parameter(self.relative_position_bias_table.detach()[:, kept].clone())
        self.heads = tuple(self.heads[i] for i in kept)

    def train(self, mode: bool = True) -> WindowAttention:
        self._kept_bias.clear()
        self._kept_biases.clear()
        return super().train(mode)
