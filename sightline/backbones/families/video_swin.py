"""Video Swin Transformer.

Source: Liu et al., "Video Swin Transformer", 2021. State-dict keys and numbers are those of torchvision's ``swin3d_*``.

Deviations:
- ``shifted_windows=False`` cuts every layer at the same places (the thesis' setting); the weights are the same.
- Blocks stand in a ``ModuleDict`` instead of a ``Sequential``, so that a removed layer leaves a gap and
  the others keep their names.
- Linear weights of new models preserve variance (LeCun et al., 1998). torchvision's fixed deviation of 0.02 suits
  widths of some hundred; in trials the narrow model of the demo learned much more slowly with it.

Where tokens were dropped, LayerNorm, linear layers and MLP run on those that are left. For attention every dropped cell
is filled with the query, key and value of the nearest token that is left, so that windows are whole; what comes out at
the filled cells is discarded. Unless weights or keys are asked for, only what is not discarded is computed, see
`sightline.backbones.parts.sparse_windows`. The grid is filled before patches are merged. The classifier's mean is over
the tokens that are left.

Where a window is larger than the grid in height or width, torchvision takes a wrong corner of its position index; this
is kept for parity. Sizes that divide into whole windows avoid it.

Shapes: B clips, N cells of the grid, D width, W windows, n cells per window, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMerging
from torchvision.ops import MLP, StochasticDepth

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.layout import NO_TOKEN, AttentionLayout
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.reducer import Place
from sightline.backbones.contract.state import TokenState, take_rows
from sightline.backbones.families.video_swin_attention import WindowAttention
from sightline.backbones.parts.grouped_attention import kept_sparse
from sightline.backbones.parts.linear import linear, preserve_variance_
from sightline.backbones.parts.windows import (
    Size3,
    WindowGeometry,
    filled_windows,
    own_places,
    query_shares,
    window_geometry,
)
from sightline.types import InputSpec, ModelRecord, Site

SITE = "attention"
layer_norm = partial(nn.LayerNorm, eps=1e-5)


@dataclass(frozen=True)
class VideoSwinConfig:
    """Architecture of a Video Swin Transformer.

    Attributes:
        frames: Frames per clip.
        size: Height and width of a clip in pixels.
        num_classes: Number of classes.
        shifted_windows: Whether every second layer shifts its windows (true in the released checkpoints).
        patch: Patch size in frames, rows, columns.
        width: Channels of the first stage; doubled at each further stage.
        depths: Layers per stage.
        heads: Attention heads per layer of each stage.
        window: Window size in cells (T, H, W).
        mlp_ratio: Width of the MLP relative to the tokens'.
        drop_path: Largest stochastic depth rate; layers get it in proportion to their depth.
    """

    frames: int = 16
    size: int = 224
    num_classes: int = 400
    shifted_windows: bool = True
    patch: Size3 = (2, 4, 4)
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: Size3 = (8, 7, 7)
    mlp_ratio: float = 4.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths {self.depths} and heads {self.heads} must name the same number of stages.")
        if self.frames < self.patch[0] or self.size < self.patch[1]:
            raise ValueError(
                f"Video Swin cuts clips into patches of {self.patch}; {self.frames} frames of {self.size} pixels "
                "hold none."
            )


class SwinLayer(Layer):
    """Window attention and MLP, each after a LayerNorm and inside a residual connection."""

    def __init__(self, config: VideoSwinConfig, index: int, stage: int, place: int, drop_path: float) -> None:
        super().__init__()
        width = config.width * 2**stage
        self.index = index
        self.stage = stage
        self.shift = config.shifted_windows and place % 2 == 1
        self.cell = (config.patch[0], config.patch[1] * 2**stage, config.patch[2] * 2**stage)
        self.norm1 = layer_norm(width)
        self.attn = WindowAttention(width, config.heads[stage], config.window)
        self.stochastic_depth = StochasticDepth(drop_path, "row")
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width, [int(width * config.mlp_ratio), width], activation_layer=nn.GELU, inplace=None)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                preserve_variance_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(SITE, self.attn.heads),)

    def geometry(self, state: TokenState) -> WindowGeometry:
        return window_geometry(state.grid, self.attn.window, self.shift)

    def attend(
        self,
        state: TokenState,
        site: str,
        weights: bool = False,
        keys: bool = False,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        geometry, kept, attn = self.geometry(state), state.kept, self.attn
        if kept is None:
            qkv = attn.qkv(geometry.partition(self.norm1(state.tokens)))
            found = attn.features(qkv, features, geometry.reverse)
            return replace(attn.attend(qkv, geometry, weights, keys), features=found)
        # Padding is a token of zeros, as in whole grids, where it attends and is attended to.
        x = F.pad(self.norm1(state.tokens), (0, 0, 0, 1 if geometry.padded != geometry.grid else 0))
        qkv = attn.qkv(x)
        found = attn.features(qkv, features, lambda part: part[:, : state.patches])
        if kept_sparse(state) is not None and not (weights or keys):
            return HeadOutputs(attn.attend_kept(qkv, kept, geometry), features=found)
        outputs = attn.attend(take_rows(qkv, filled_windows(kept, geometry)), geometry, weights, keys)
        return replace(outputs, heads=take_rows(outputs.heads, own_places(kept, geometry)), features=found)

    def project(self, state: TokenState, site: str, attended: HeadOutputs) -> TokenState:
        update = self._in_token_order(self.attn.proj(attended.merged()), state)
        return state.with_tokens(state.tokens + self.stochastic_depth(update))

    def _in_token_order(self, values: Tensor, state: TokenState) -> Tensor:
        """Bring what was computed of the heads, (B, L, D), into the order of the tokens, (B, N, D)."""
        return self.geometry(state).reverse(values) if state.is_dense else values

    def contribution(self, state: TokenState, site: str, attended: HeadOutputs, position: int) -> Tensor:
        head = attended.heads[:, :, position]
        width = head.shape[-1]
        weight = self.attn.proj.weight[:, position * width : (position + 1) * width]
        return self._in_token_order(linear(head, weight), state)

    def mlp_step(self, state: TokenState) -> TokenState:
        return state.with_tokens(state.tokens + self.stochastic_depth(self.mlp(self.norm2(state.tokens))))

    def layout(self, state: TokenState, site: str) -> AttentionLayout:
        """Groups are windows; a map is the mean over the queries of each window, of those whose tokens are left."""
        geometry, device = self.geometry(state), state.tokens.device
        own, shares = geometry.cells(device).unsqueeze(0), query_shares(geometry, device).unsqueeze(0)
        if state.kept is None:
            return AttentionLayout(geometry.grid, self.cell, own, shares)
        cells = state.kept.standing_in[:, own.flatten().clamp(min=0)].view(-1, *own.shape[1:])
        cells = torch.where(own == NO_TOKEN, NO_TOKEN, cells)
        copies = cells != own
        read = shares.masked_fill(copies, 0)
        # A window's mean is over fewer queries then; one without any token that is left is read by nobody.
        read = read * shares.sum(dim=2, keepdim=True) / read.sum(dim=2, keepdim=True).clamp(min=1e-12)
        return AttentionLayout(geometry.grid, self.cell, cells, read, copies, state.kept.merged_into)

    def remove_heads(self, site: str, positions: Collection[int]) -> None:
        self.attn.remove_heads(positions)


class PatchEmbed(nn.Module):
    """Patch embedding under torchvision's names; clips are padded at the end to whole patches."""

    def __init__(self, patch: Size3, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, width, patch, patch)
        self.norm = layer_norm(width)

    def forward(self, pixels: Tensor) -> TokenState:
        t, h, w = (-size % p for size, p in zip(pixels.shape[2:], self.patch, strict=True))
        if t or h or w:
            pixels = nn.functional.pad(pixels, (0, w, 0, h, 0, t))
        x = self.proj(pixels)
        return TokenState(self.norm(x.flatten(2).transpose(1, 2)), grid=tuple(x.shape[2:]))


class VideoSwin(Backbone):
    """Video Swin Transformer; every layer can be removed, patch merging is part of none."""

    family = "video_swin"
    dropped_tokens = "filled"
    refilled = True
    no_weight_decay = frozenset({"relative_position_bias_table"})  # as in the official configurations
    config: VideoSwinConfig

    def __init__(self, config: VideoSwinConfig, record: ModelRecord | None = None) -> None:
        spec = InputSpec(config.frames, config.size, config.size)
        super().__init__(config, spec, sum(config.depths), record)
        self.patch_embed = PatchEmbed(config.patch, config.width)
        # torchvision numbers stages and mergings through: stage s is features.2s, the merging after it features.2s+1.
        self.features = nn.ModuleDict()
        self._stage_start: list[int] = []
        index = 0
        for stage, depth in enumerate(config.depths):
            self._stage_start.append(index)
            layers = nn.ModuleDict()
            for place in range(depth):
                rate = config.drop_path * index / max(self.depth - 1, 1)
                layers[str(place)] = SwinLayer(config, index, stage, place, rate)
                index += 1
            self.features[str(2 * stage)] = layers
            if stage + 1 < len(config.depths):
                merging = PatchMerging(config.width * 2**stage, layer_norm)
                preserve_variance_(merging.reduction.weight)
                self.features[str(2 * stage + 1)] = merging
        width = config.width * 2 ** (len(config.depths) - 1)
        self.norm = layer_norm(width)
        self.head = nn.Linear(width, config.num_classes)
        self.reset_classifier(config.num_classes)

    def tokenize(self, pixels: Tensor) -> TokenState:
        return self.patch_embed(pixels)

    def _stage(self, stage: int) -> nn.ModuleDict:
        module = self.features[str(2 * stage)]
        assert isinstance(module, nn.ModuleDict)
        return module

    def layer_modules(self) -> dict[int, Layer]:
        layers = [layer for stage in range(len(self._stage_start)) for layer in self._stage(stage).values()]
        return {layer.index: layer for layer in layers if isinstance(layer, Layer)}

    def delete_layer(self, index: int) -> None:
        stage = max(s for s, start in enumerate(self._stage_start) if start <= index)
        del self._stage(stage)[str(index - self._stage_start[stage])]

    @property
    def stage_starts(self) -> tuple[int, ...]:
        return tuple(self._stage_start)

    @property
    def reduction_places(self) -> tuple[Place, ...]:
        """Where every stage but the first begins, after merging (STA's schedule for Video Swin)."""
        return tuple(Place("stage", stage) for stage in range(1, len(self._stage_start)))

    @property
    def reduction_grids(self) -> tuple[Size3, ...]:
        frames, size, patch = self.config.frames, self.config.size, self.config.patch
        t, h, w = -(-frames // patch[0]), -(-size // patch[1]), -(-size // patch[2])
        # Merging rounds odd sides up.
        return tuple((t, -(-h // 2**stage), -(-w // 2**stage)) for stage in range(1, len(self._stage_start)))

    def before_layer(self, index: int, state: TokenState) -> TokenState:
        """Merge patches where a stage begins; a grid with dropped tokens is filled before."""
        if index == 0 or index not in self._stage_start:
            return state
        stage, state = self._stage_start.index(index), state.densified()
        t, h, w = state.grid
        x = self.features[str(2 * stage - 1)](state.tokens.view(state.batch, t, h, w, -1))
        features = {name: _merged_features(values, state.grid) for name, values in state.features.items()}
        return replace(state, tokens=x.flatten(1, 3), grid=(t, x.shape[2], x.shape[3]), features=features)

    def classify(self, state: TokenState) -> Tensor:
        return self.head(state.with_tokens(self.norm(state.tokens)).mean())

    def classifier_keys(self) -> tuple[str, ...]:
        return ("head.weight", "head.bias")

    def reset_classifier(self, num_classes: int) -> None:
        self.config = replace(self.config, num_classes=num_classes)
        self.head = nn.Linear(self.norm.normalized_shape[0], num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)


def _merged_features(features: Tensor, grid: Size3) -> Tensor:
    """Average features (B, N, h, d) of the cells that are merged, two rows by two columns; odd sides count what is."""
    b, _, h, d = features.shape
    t, rows, columns = grid
    planes = features.reshape(b * t, rows, columns, h * d).permute(0, 3, 1, 2)
    merged = F.avg_pool2d(planes, 2, ceil_mode=True, count_include_pad=False)
    return merged.permute(0, 2, 3, 1).reshape(b, -1, h, d)
