"""The video ViT that VideoMAE fine-tunes: tubes as tokens, joint attention, mean pooling.

Source: Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
2022 (sections 3.1 and 3.3). State-dict keys and numbers are those of the official fine-tuning model.

Deviations from the official implementation (and see `sightline.backbones.parts.joint_attention`):
- A clip of another number of frames or another size gets a fresh table of positions of its own length. The official
  model does the same; it interpolates only positions that were learned, which no released checkpoint has.
- The classifier of new models is not scaled down by 0.001.
- Layer scale, learned positions and a class token, all off in the released checkpoints, are left out.
- Where tokens were dropped, the mean is over those that are left.

Shapes: B clips, N tokens, D width, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.backbones.contract.state import TokenState
from sightline.backbones.parts.joint_attention import (
    BlockStack,
    JointLayer,
    SelfAttention,
    check_sizes,
    drop_path_rate,
    layer_norm,
)
from sightline.backbones.parts.linear import linear, preserve_variance_
from sightline.backbones.parts.windows import Size3
from sightline.types import InputSpec, ModelRecord


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of a video ViT.

    Attributes:
        frames: Frames per clip.
        size: Height and width of a clip in pixels.
        num_classes: Number of classes.
        patch: Size of a tube in frames, rows, columns.
        width: Channels of a token.
        depth: Number of layers.
        heads: Attention heads per layer.
        mlp_ratio: Width of the MLP relative to the tokens'.
        drop_path: Largest stochastic depth rate; layers get it in proportion to their depth.
    """

    frames: int = 16
    size: int = 224
    num_classes: int = 400
    patch: Size3 = (2, 16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_sizes("ViT", self.frames, self.size, self.patch, self.width, self.heads)


class BiasedQV(SelfAttention):
    """Self-attention with a bias of queries and values only; one of keys would not change the softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))

    def project_in(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        return linear(x, self.qkv.weight, bias)

    def remove_heads(self, positions: Collection[int]) -> Tensor:
        columns = super().remove_heads(positions)
        self.q_bias = nn.Parameter(self.q_bias.detach()[columns].clone())
        self.v_bias = nn.Parameter(self.v_bias.detach()[columns].clone())
        return columns


class TubeEmbed(nn.Module):
    """Linear embedding of tubes; its parameters are those of the convolution ``proj`` of the official code."""

    def __init__(self, patch: Size3, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, width, patch, patch)
        preserve_variance_(self.proj.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn pixels (B, 3, T, H, W) into tokens on their grid, (B, T', H', W', D)."""
        t, h, w = self.patch
        # Tubes do not overlap, so that this is the convolution; it is faster, and tokens come out contiguous.
        x = pixels.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
        tubes = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return linear(tubes, self.proj.weight.flatten(1), self.proj.bias)


class ViT(BlockStack):
    """Video ViT: tubes as tokens, fixed positions, joint attention, mean over the tokens."""

    family = "vit"
    config: ViTConfig
    pos_embed: Tensor

    def __init__(self, config: ViTConfig, record: ModelRecord | None = None) -> None:
        t, h, w = (s // p for s, p in zip((config.frames, config.size, config.size), config.patch, strict=True))
        blocks = [
            JointLayer(
                index,
                BiasedQV(config.width, config.heads),
                config.mlp_ratio,
                drop_path_rate(config.drop_path, index, config.depth),
                (t, h, w),
                config.patch,
            )
            for index in range(config.depth)
        ]
        super().__init__(config, InputSpec(config.frames, config.size, config.size), blocks, record)
        self.grid = (t, h, w)
        self.patch_embed = TubeEmbed(config.patch, config.width)
        self.register_buffer("pos_embed", sinusoid_table(t * h * w, config.width), persistent=False)
        self.fc_norm = layer_norm(config.width)

    def tokenize(self, pixels: Tensor) -> TokenState:
        x = self.patch_embed(pixels)
        return TokenState(x.flatten(1, 3) + self.pos_embed, grid=(x.shape[1], x.shape[2], x.shape[3]))

    def classify(self, state: TokenState) -> Tensor:
        return self.head(self.fc_norm(state.mean()))


def sinusoid_table(length: int, width: int) -> Tensor:
    """Return the fixed positions of Vaswani et al. (2017, section 3.5), (1, length, width), one row per token."""
    channel = torch.arange(width)
    position = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    # Computed in double precision, as in the official code, because angles reach the number of tokens.
    angle = position / 10000 ** (2 * (channel // 2).double() / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)
