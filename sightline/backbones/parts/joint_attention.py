"""What TimeSformer and ViT are made of: self-attention, layers that normalise first, and one stack of such layers.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021 (equations 2 and 3: the layer); Huang et al., "Deep
Networks with Stochastic Depth", 2016. Modules bear the names that the official TimeSformer and VideoMAE took from timm.

Deviations from both official implementations:
- Layers stand in a ``ModuleDict`` instead of a ``ModuleList``, so that a removed layer leaves a gap and the others keep
  their names.
- Linear weights of new models preserve variance instead of having the fixed deviation of 0.02, which suits widths of
  some hundred; biases are zero as there.
- No dropout on attention weights, projections and MLPs; the released configurations set all of it to 0.

Shapes: B clips, G groups that attend among themselves, n tokens of a group, N tokens, D width, h heads, d width of a
head.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.layout import CLASS_TOKEN, NO_TOKEN, AttentionLayout
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.state import TokenState, take_rows
from sightline.backbones.parts.attention import attention, attention_with_weights
from sightline.backbones.parts.linear import linear, preserve_variance_, smaller_linear
from sightline.backbones.parts.sparse_frames import attend_in_frames, frame_plan
from sightline.backbones.parts.windows import Size3
from sightline.types import InputSpec, ModelRecord, Site

JOINT = "attention"
layer_norm = partial(nn.LayerNorm, eps=1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention within groups of tokens, up to its output projection, which is called apart."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = tuple(range(heads))
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def project_in(self, x: Tensor) -> Tensor:
        """Return queries, keys and values side by side, (..., 3 * h * d)."""
        return self.qkv(x)

    def attend(
        self,
        x: Tensor,
        weights: bool = False,
        keys: bool = False,
        mask: Tensor | None = None,
        rows: Tensor | None = None,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        """Return H_h of every head, (B, G * n, h, d), and what else is asked for.

        Args:
            x: Normalised tokens, (B, G, n, D); with ``rows``, (B, N, D).
            weights: Also return the softmax weights.
            keys: Also return the keys.
            mask: True where a key may be attended to; broadcasts to (B * G, h, n, n).
            rows: Which of the N tokens stand in each group, (B, G, n); a token may stand in several places.
            features: What to return of each token besides, in the order of ``x``, (B, ..., h, d).
        """
        b, g, n = x.shape[:3] if rows is None else rows.shape
        h, d = len(self.heads), self.head_width
        qkv = self.project_in(x)
        parts = dict(zip(("queries", "keys", "values"), qkv.unflatten(-1, (3, h, d)).unbind(-3), strict=True))
        if rows is not None:
            qkv = take_rows(qkv, rows.flatten(1))
        # Views only: the fused kernels take strided queries, and their result already lies as (B * G, n, h, d).
        q, k, v = qkv.view(b * g, n, 3, h, d).permute(2, 0, 3, 1, 4)
        found = None
        if weights:
            out, found = attention_with_weights(q, k, v, mask, shape=(b, g, h, n, n))
        else:
            out = attention(q, k, v, mask)
        return HeadOutputs(
            out.transpose(1, 2).reshape(b, g * n, h, d),
            attention=found,
            keys=k.unflatten(0, (b, g)) if keys else None,
            features={name: parts[name] for name in features},
        )

    def attend_first(self, x: Tensor, mask: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Return H_h of every head at the first token of each group, (B, G, h, d); arguments as in `attend`."""
        b, g, n = x.shape[:3] if rows is None else rows.shape
        h, d = len(self.heads), self.head_width
        weight, bias = self.qkv.weight, self.qkv.bias
        first, kv = x[:, :, :1], linear(x, weight[h * d :], bias[h * d :])
        if rows is not None:
            first, kv = take_rows(x, rows[:, :, 0]).unsqueeze(2), take_rows(kv, rows.flatten(1))
        q = linear(first, weight[: h * d], bias[: h * d]).view(b * g, 1, h, d).transpose(1, 2)
        k, v = kv.view(b * g, n, 2, h, d).permute(2, 0, 3, 1, 4)
        return attention(q, k, v, mask).reshape(b, g, h, d)

    def attend_frames(self, x: Tensor, kept: KeptCells, features: Collection[Feature] = ()) -> HeadOutputs:
        """Attend within the frames of a grid with dropped tokens, as if it were filled; H_h is (B, T + K, h, d).

        Args:
            x: Normalised tokens, (B, 1 + K, D), a class token first, which has a copy in every frame. The results at
                its copies come first.
            kept: Which cells are left.
            features: What to return of each token besides, (B, 1 + K, h, d).
        """
        h, d = len(self.heads), self.head_width
        qkv, plan = self.project_in(x), frame_plan(kept, self.proj.out_features)
        heads = attend_in_frames(qkv[..., : h * d], qkv[..., h * d :], (h, d), plan, kept.exists is not None)
        parts = dict(zip(("queries", "keys", "values"), qkv.unflatten(-1, (3, h, d)).unbind(-3), strict=True))
        return HeadOutputs(heads, features={name: parts[name] for name in features})

    def attend_class_in_frames(self, x: Tensor, kept: KeptCells) -> Tensor:
        """Return H_h at the class token's copies alone, (B, T, h, d); arguments as in `attend_frames`."""
        h, d = len(self.heads), self.head_width
        weight, bias = self.qkv.weight, self.qkv.bias
        q, kv = linear(x[:, :1], weight[: h * d], bias[: h * d]), linear(x, weight[h * d :], bias[h * d :])
        return attend_in_frames(q, kv, (h, d), frame_plan(kept, self.proj.out_features, class_only=True), False)

    def output_weight(self, position: int) -> Tensor:
        """Return the part (D, d) of the output projection's weight that reads one head."""
        return self.proj.weight[:, position * self.head_width : (position + 1) * self.head_width]

    def remove_heads(self, positions: Collection[int]) -> Tensor:
        """Delete the parameters of some heads; return which of the h * d columns stay."""
        d = self.head_width
        kept = [i for i in range(len(self.heads)) if i not in set(positions)]
        columns = torch.cat([torch.arange(i * d, (i + 1) * d) for i in kept] or [torch.arange(0)])
        rows = torch.cat([columns + part * len(self.heads) * d for part in range(3)])
        self.qkv = smaller_linear(self.qkv, rows=rows)
        self.proj = smaller_linear(self.proj, columns=columns)
        self.heads = tuple(self.heads[i] for i in kept)
        return columns


class JointLayer(Layer):
    """Attention among all tokens, then an MLP, each after a LayerNorm and inside a residual connection.

    Needs no dense grid: tokens may have been dropped, and those that a key mask marks as missing are not attended to
    (what is computed at their own places means nothing and reaches no other token).
    """

    stage = 0

    def __init__(
        self, index: int, attn: SelfAttention, mlp_ratio: float, drop_path: float, grid: Size3, patch: Size3
    ) -> None:
        super().__init__()
        width = attn.proj.out_features
        self.index = index
        self.grid, self.patch = grid, patch
        self.norm1 = layer_norm(width)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(JOINT, self.attn.heads),)

    def attend(
        self,
        state: TokenState,
        site: str,
        weights: bool = False,
        keys: bool = False,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        x = self.norm1(state.tokens).unsqueeze(1)
        outputs = self.attn.attend(x, weights, keys, _key_bias(state), features=features)
        return replace(outputs, features={name: part.squeeze(1) for name, part in outputs.features.items()})

    def attend_class(self, state: TokenState, site: str) -> HeadOutputs:
        x = self.norm1(state.tokens).unsqueeze(1)
        return HeadOutputs(self.attn.attend_first(x, _key_bias(state)), class_only=True)

    def project(self, state: TokenState, site: str, attended: HeadOutputs) -> TokenState:
        state = state.only_class_tokens() if attended.class_only else state
        return state.with_tokens(state.tokens + self.drop_path(self.attn.proj(attended.merged())))

    def contribution(self, state: TokenState, site: str, attended: HeadOutputs, position: int) -> Tensor:
        return linear(attended.heads[:, :, position], self.attn.output_weight(position))

    def mlp_step(self, state: TokenState) -> TokenState:
        return state.with_tokens(state.tokens + self.drop_path(self.mlp(self.norm2(state.tokens))))

    def layout(self, state: TokenState, site: str) -> AttentionLayout:
        """One group; a map is the class token's row, or where there is none the mean over all queries.

        In the mean, a token that others were merged into counts as many times as it has patches.
        """
        cells = F.pad(state.cell_numbers(), (state.class_tokens, 0), value=CLASS_TOKEN)
        cells = cells[:1] if state.is_dense else cells
        read = (cells == CLASS_TOKEN if state.class_tokens else cells != NO_TOKEN).float()
        merged = None
        if state.kept is not None and state.kept.sizes is not None:
            merged = state.kept.merged_into
            read = read if state.class_tokens else state.kept.sizes.float()
        weights = read / read.sum(dim=1, keepdim=True)
        return AttentionLayout(self.grid, self.patch, cells.unsqueeze(1), weights.unsqueeze(1), merged_into=merged)

    def remove_heads(self, site: str, positions: Collection[int]) -> None:
        self.attn.remove_heads(positions)


def _key_bias(state: TokenState) -> Tensor | None:
    """What says which keys exist, bool (B, 1, 1, N), or how many patches each is made of, as an addend of logits."""
    kept, mask = state.kept, state.key_mask
    if kept is None or kept.sizes is None or not kept.how.proportional:
        return None if mask is None else mask[:, None, None, :]
    # The logarithm of 0 leaves out what does not exist.
    sizes = F.pad(kept.sizes, (state.class_tokens, 0), value=1)
    return sizes.to(state.tokens.dtype).log()[:, None, None, :]


class BlockStack(Backbone):
    """A backbone of layers of one width in one stage, named ``blocks.N``, and a linear classifier ``head``.

    Attributes:
        grid: Grid (T, H, W) of its tokens.
    """

    dropped_tokens: Literal["left_out", "filled", "refused"] = "left_out"
    square_attention = True
    grid: Size3

    def __init__(self, config: Any, spec: InputSpec, blocks: Sequence[Layer], record: ModelRecord | None) -> None:
        super().__init__(config, spec, len(blocks), record)
        self.blocks = nn.ModuleDict({str(block.index): block for block in blocks})
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                preserve_variance_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.reset_classifier(config.num_classes)

    @property
    def reduction_grids(self) -> tuple[Size3, ...]:
        return (self.grid,) * len(self.reduction_places)

    def layer_modules(self) -> dict[int, Layer]:
        return {layer.index: layer for layer in self.blocks.values() if isinstance(layer, Layer)}

    def delete_layer(self, index: int) -> None:
        del self.blocks[str(index)]

    def classifier_keys(self) -> tuple[str, ...]:
        return ("head.weight", "head.bias")

    def reset_classifier(self, num_classes: int) -> None:
        self.config = replace(self.config, num_classes=num_classes)
        self.head = nn.Linear(self.config.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)


def drop_path_rate(largest: float, index: int, depth: int) -> float:
    """Return the stochastic depth rate of a layer: from 0 in the first to ``largest`` in the last."""
    return largest * index / max(depth - 1, 1)


def check_sizes(who: str, frames: int, size: int, patch: tuple[int, int, int], width: int, heads: int) -> None:
    """Raise ValueError where a clip does not divide into whole patches, or the width not into heads."""
    if frames < 1:
        raise ValueError(f"{who} needs at least 1 frame, got frames {frames}.")
    if len(patch) != 3 or min(patch) < 1:
        raise ValueError(f"{who} needs a patch of frames, rows and columns, each at least 1, got {patch}.")
    if frames % patch[0]:
        raise ValueError(f"{who} cuts clips into tubes of {patch[0]} frames; {frames} frames do not divide by that.")
    for side in patch[1:]:
        if size < side or size % side:
            raise ValueError(f"{who} cuts frames into patches of {side} pixels; size {size} does not divide by that.")
    if heads < 1 or width % heads:
        raise ValueError(f"{who} shares its width among the heads; width {width} does not divide by {heads} heads.")
