"""MViTv2, a video transformer whose grid gets coarser and whose tokens get wider from stage to stage.

Sources: Fan et al., "Multiscale Vision Transformers", 2021; Li et al., "MViTv2: Improved Multiscale Vision Transformers
for Classification and Detection", 2022. State-dict keys and numbers are those of torchvision's ``mvit_v2_s``.

The first layer of every stage but the first pools the grid and widens the tokens; in MViTv2-S these are layers 1, 3
and 14. They can be ablated (attention and MLP are dropped, the pooled and projected shortcut stays), never removed.

What ablating a head means here: A_h = 0, so A_h V_h is gone. MViTv2 adds the pooled query to A V ("residual pooling",
equation 4; not for the class token). It is not attention and stays by default, also when a head is removed: then keys
and values of the head do not exist any more, its queries and its columns of the output projection do. With
``residual_follows_head`` it counts as part of the head: it is ablated and removed with it.

Where tokens were dropped, LayerNorm, linear layers and MLP run on those that are left. For pooling every dropped cell
is filled with the query, key and value of the nearest token that is left; what comes out at the filled cells is
discarded, whatever `Attending.sparse` says: every pooled key is made of several cells, so that few of them are alike.
Before a layer that pools the grid itself, all cells are filled for good.

Deviations:
- Layers stand in a ``ModuleDict`` instead of a ``ModuleList``, so that a removed layer leaves a gap and the others keep
  their names.
- Linear weights of new models preserve variance instead of having torchvision's fixed deviation of 0.02, which suits
  widths of some hundred (see Video Swin).
- Heads are pooled together and relative positions are folded into queries and keys, see
  `sightline.backbones.families.mvit_attention`.
- No absolute positions and no dropout within layers; the released model has neither.

Shapes: B clips, N patches (after one class token), D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP, StochasticDepth

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.layout import CLASS_TOKEN, AttentionLayout, coarser_cells
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.reducer import Place
from sightline.backbones.contract.state import TokenState, take_rows
from sightline.backbones.families.mvit_attention import MultiscaleAttention, layer_norm
from sightline.backbones.families.mvit_config import LayerShape, MViTConfig
from sightline.backbones.parts.linear import linear, preserve_variance_
from sightline.backbones.parts.relative_positions import Size3, resized
from sightline.types import InputSpec, ModelRecord, Site

SITE = "attention"
PATCH_KERNEL, PATCH_PADDING = (3, 7, 7), (1, 3, 3)
AXES = {"rel_pos_h": "height", "rel_pos_w": "width", "rel_pos_t": "time"}


class MultiscaleBlock(nn.Module):
    """Modules of one layer under torchvision's names.

    They do not stand in the layer itself, because one of them, the projection of the skip path, is called ``project``,
    which is what the contract calls a step of every layer.
    """

    def __init__(self, shape: LayerShape, config: MViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(shape.width_in)
        self.norm2 = layer_norm(shape.width)
        self.attn = MultiscaleAttention(shape, config.residual_follows_head)
        hidden = int(shape.width * config.mlp_ratio)
        self.mlp = MLP(shape.width, [hidden, shape.width], activation_layer=nn.GELU, inplace=None)
        self.stochastic_depth = StochasticDepth(drop_path, "row")
        self.project = nn.Linear(shape.width_in, shape.width) if shape.width != shape.width_in else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                preserve_variance_(module.weight)
                nn.init.zeros_(module.bias)


class MViTLayer(Layer):
    """Pooling attention and MLP, each after a LayerNorm and inside a residual connection."""

    def __init__(self, block: MultiscaleBlock, index: int, stage: int) -> None:
        super().__init__()
        self.block = block
        self.index = index
        self.stage = stage
        self.shape = block.attn.shape
        self.removable = self.shape.removable
        self.pools = self.fills_first = self.shape.grid_after != self.shape.grid
        if not self.removable:
            before, after = ("x".join(map(str, grid)) for grid in (self.shape.grid, self.shape.grid_after))
            self.reason = (
                f"it turns tokens of width {self.shape.width_in} on a grid of {before} into tokens of width "
                f"{self.shape.width} on {after}, which the layers after it need"
            )

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(SITE, self.block.attn.heads),)

    def attend(
        self,
        state: TokenState,
        site: str,
        weights: bool = False,
        keys: bool = False,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        if state.grid != self.shape.grid:
            raise ValueError(f"Layer {self.index} of MViT takes a grid of {self.shape.grid}, got {state.grid}.")
        state = self._whole(state)
        normalised = self.block.norm1(state.tokens)
        outputs = self.block.attn(normalised, weights, keys, None if state.is_dense else state.filling(), features)
        if features:
            # A token takes the key whose cell its own upper left corner lies in.
            after = self.shape.grid_after if self.pools else state.grid
            t, h, w = after
            own = torch.arange(t * h * w, device=normalised.device).expand(state.batch, -1)
            own = own if state.is_dense else state.cell_numbers()
            places = F.pad(coarser_cells(own, after, self.shape.key_grid).clamp(min=0) + 1, (1, 0))
            found = {name: take_rows(values, places) for name, values in outputs.features.items()}
            outputs = replace(outputs, features=found)
        if not state.is_dense:
            # The layer keeps the grid: every token that is left has a place among the queries.
            own = F.pad(state.cell_numbers().clamp(min=0) + 1, (1, 0))
            residual = None if outputs.residual is None else take_rows(outputs.residual, own)
            outputs = replace(outputs, heads=take_rows(outputs.heads, own), residual=residual)
        return outputs if self.block.project is None else replace(outputs, normalised=normalised)

    def _whole(self, state: TokenState) -> TokenState:
        """Fill the grid for good where this layer pools it."""
        return state.densified() if self.pools else state

    def attend_class(self, state: TokenState, site: str) -> HeadOutputs:
        state = self._whole(state)
        normalised = self.block.norm1(state.tokens)
        outputs = self.block.attn.attend_class(normalised, None if state.is_dense else state.filling())
        return outputs if self.block.project is None else replace(outputs, normalised=normalised)

    def project(self, state: TokenState, site: str, attended: HeadOutputs) -> TokenState:
        update = self.block.attn.project(attended.merged())
        if attended.class_only:
            # Pooling leaves class tokens as they are.
            state = state.only_class_tokens()
            if self.block.project is not None:
                assert attended.normalised is not None
                state = state.with_tokens(self.block.project(attended.normalised[:, :1]))
            return state.with_tokens(state.tokens + update)
        skipped = self._skip_path(self._whole(state), attended.normalised)
        return skipped.with_tokens(skipped.tokens + self.block.stochastic_depth(update))

    def contribution(self, state: TokenState, site: str, attended: HeadOutputs, position: int) -> Tensor:
        weight = self.block.attn.projection.weight[:, self.block.attn.columns(position)]
        return linear(attended.heads[:, :, position], weight)

    def mlp_step(self, state: TokenState) -> TokenState:
        update = self.block.mlp(self.block.norm2(state.tokens))
        return state.with_tokens(state.tokens + self.block.stochastic_depth(update))

    def shortcut(self, state: TokenState) -> TokenState:
        """Return the tokens as the skip path around the attention hands them on: projected and pooled where need be."""
        state = self._whole(state)
        return self._skip_path(state, None if self.block.project is None else self.block.norm1(state.tokens))

    def _skip_path(self, state: TokenState, normalised: Tensor | None) -> TokenState:
        tokens, features = state.tokens, state.features
        if self.block.project is not None:
            assert normalised is not None
            tokens = self.block.project(normalised)
        if self.pools:
            tokens = self._pool_patches(tokens)
            features = {name: self._of_corners(values) for name, values in features.items()}
        return replace(state, tokens=tokens, grid=self.shape.grid_after, features=features)

    def _of_corners(self, features: Tensor) -> Tensor:
        """Take for every pooled patch what its stride's first patch has: (B, 1 + N, h, d) -> (B, 1 + N', h, d)."""
        t, h, w = self.shape.stride_q
        first = features[:, 1:].unflatten(1, self.shape.grid)[:, ::t, ::h, ::w]
        return torch.cat((features[:, :1], first.flatten(1, 3)), dim=1)

    def _pool_patches(self, tokens: Tensor) -> Tensor:
        """Take the maximum of neighbouring patches: (B, 1 + N, D) -> (B, 1 + N', D)."""
        stride = self.shape.stride_q
        kernel = [step + 1 if step > 1 else 1 for step in stride]
        # A view with channels last, as the tokens lie: 20 times as fast on a CPU as with channels first.
        patches = tokens[:, 1:].reshape(tokens.shape[0], *self.shape.grid, -1).permute(0, 4, 1, 2, 3)
        pooled = F.max_pool3d(patches, kernel, stride, [size // 2 for size in kernel])
        return torch.cat((tokens[:, :1], pooled.flatten(2).transpose(1, 2)), dim=1)

    def layout(self, state: TokenState, site: str) -> AttentionLayout:
        """One group; a map is the class token's row over the pooled keys."""
        device, key_grid = state.tokens.device, self.shape.key_grid
        cells = torch.arange(key_grid[0] * key_grid[1] * key_grid[2], device=device)
        cells = F.pad(cells, (1, 0), value=CLASS_TOKEN)
        after = self.shape.grid_after
        weights = F.pad(torch.ones(1, device=device), (0, after[0] * after[1] * after[2]))  # class token, patches
        return AttentionLayout(key_grid, self.shape.key_cell, cells.view(1, 1, -1), weights.view(1, 1, -1))

    def remove_heads(self, site: str, positions: Collection[int]) -> None:
        self.block.attn.remove_heads(positions)


class ClassToken(nn.Module):
    """The class token, under torchvision's name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))

    def forward(self, patches: Tensor) -> Tensor:
        """Put the class token before patches, (B, N, D) -> (B, 1 + N, D)."""
        return torch.cat((self.class_token.expand(patches.shape[0], 1, -1), patches), dim=1)


class MViT(Backbone):
    """MViTv2; every layer can be removed but those that change the grid or the width."""

    family = "mvit"
    dropped_tokens = "filled"
    refilled = True
    shown_features = frozenset({"keys", "values"})  # queries are pooled to another grid than keys
    own_keys = False
    reads_class_tokens = True
    # As in PySlowFast with MVIT.ZERO_DECAY_POS_CLS.
    no_weight_decay = frozenset({"class_token", "rel_pos_h", "rel_pos_w", "rel_pos_t"})
    config: MViTConfig

    def __init__(self, config: MViTConfig, record: ModelRecord | None = None) -> None:
        spec = InputSpec(config.frames, config.size, config.size)
        super().__init__(config, spec, sum(config.depths), record)
        self.conv_proj = nn.Conv3d(3, config.width, PATCH_KERNEL, config.patch, PATCH_PADDING)
        self.pos_encoding = ClassToken(config.width)
        self.blocks = nn.ModuleDict()
        # The steps of the blocks; a plain dict, because a module must stand in the tree of modules only once.
        self._layers: dict[int, Layer] = {}
        shapes, stages = config.layer_shapes(), config.stage_of_layer()
        for index, (shape, stage) in enumerate(zip(shapes, stages, strict=True)):
            block = MultiscaleBlock(shape, config, config.drop_path * index / max(self.depth - 1, 1))
            self.blocks[str(index)] = block
            self._layers[index] = MViTLayer(block, index, stage)
        self.norm = layer_norm(shapes[-1].width)
        self.reset_classifier(config.num_classes)

    def tokenize(self, pixels: Tensor) -> TokenState:
        patches = self.conv_proj(pixels)
        t, h, w = patches.shape[2:]
        return TokenState(self.pos_encoding(patches.flatten(2).transpose(1, 2)), grid=(t, h, w), class_tokens=1)

    def layer_modules(self) -> dict[int, Layer]:
        return dict(self._layers)

    @property
    def stage_starts(self) -> tuple[int, ...]:
        stages = self.config.stage_of_layer()
        return tuple(stages.index(stage) for stage in sorted(set(stages)))

    @property
    def reduction_places(self) -> tuple[Place, ...]:
        """After the first layer of every stage but the first, which pools the grid."""
        return tuple(Place("layer", start) for start in self.stage_starts[1:])

    @property
    def reduction_grids(self) -> tuple[Size3, ...]:
        shapes = self.config.layer_shapes()
        return tuple(shapes[place.index].grid_after for place in self.reduction_places)

    def delete_layer(self, index: int) -> None:
        del self.blocks[str(index)], self._layers[index]

    def classify(self, state: TokenState) -> Tensor:
        return self.head(self.norm(state.tokens[:, 0]))

    def classifier_keys(self) -> tuple[str, ...]:
        return ("head.1.weight", "head.1.bias")

    def reset_classifier(self, num_classes: int) -> None:
        self.config = replace(self.config, num_classes=num_classes)
        classifier = nn.Linear(self.norm.normalized_shape[0], num_classes)
        nn.init.trunc_normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
        self.head = nn.Sequential(nn.Dropout(self.config.dropout), classifier)

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Interpolate tables of relative positions linearly to this model's lengths; one sentence for each axis."""
        adapted, own = dict(tensors), self.state_dict()
        changes: dict[str, list[tuple[int, int]]] = {}
        for key, table in tensors.items():
            kind = key.rsplit(".", 1)[-1]
            if kind not in AXES or key not in own or table.dim() != 2 or table.shape[1] != own[key].shape[1]:
                continue
            before, after = table.shape[0], own[key].shape[0]
            if before != after:
                adapted[key] = resized(table.float(), after).to(table.dtype).contiguous()
                changes.setdefault(kind, []).append((before, after))
        return adapted, [_sentence(kind, changes[kind]) for kind in AXES if kind in changes]


def _sentence(kind: str, changes: list[tuple[int, int]]) -> str:
    lengths = ", ".join(f"{before} to {after}" for before, after in sorted(set(changes), reverse=True))
    layers = "1 layer" if len(changes) == 1 else f"{len(changes)} layers"
    return f"Relative positions in {AXES[kind]} ({kind}) of {layers} were interpolated linearly from {lengths} rows."
