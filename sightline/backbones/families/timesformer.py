"""TimeSformer with divided space-time or joint attention.

Source: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", 2021 (sections 3.1 to 3.6;
joint attention: equations 5 to 9; divided: equation 11). State-dict keys and numbers are those of the official
implementation, without its prefix ``model.``.

Deviations from the official implementation (and see `sightline.backbones.parts.joint_attention`):
- Patches stand row-major in (T, H, W) after the class token; the official order is (H, W, T). The results are the same.
- ``temporal_fc`` of new models does not start at zero, which is meant for starting from an image model: from random
  weights it would switch temporal attention off until the rest has learned to do without.
- When weights of another size are taken over, positions in the frame are interpolated bicubically on their grid. The
  official loader treats the flattened grid as one row, which moves positions to other columns, and its forward pass
  repeats nearest neighbours, which gives several patches one position. Frames are interpolated as there (nearest).
- ``proj`` and ``temporal_fc`` of temporal attention run as one linear layer where no gradient is needed.
- ``space_only`` attention is left out.
Where official code and paper differ, the code is followed: temporal attention leaves the class token alone (equation 11
has it among the keys), and in spatial attention each frame has a copy of it, of which the mean goes on.

Shapes: B clips, T frames, S = H * W places of a frame, D width, h heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, resample_abs_pos_embed
from torch import Tensor, nn

from sightline.backbones.contract.layout import CLASS_TOKEN, AttentionLayout
from sightline.backbones.contract.observation import Feature, HeadOutputs
from sightline.backbones.contract.state import TokenState, take_rows
from sightline.backbones.parts.grouped_attention import kept_sparse
from sightline.backbones.parts.joint_attention import (
    BlockStack,
    JointLayer,
    SelfAttention,
    check_sizes,
    drop_path_rate,
    layer_norm,
)
from sightline.backbones.parts.linear import linear
from sightline.backbones.parts.merged_linear import MergedLinear
from sightline.backbones.parts.windows import Size3
from sightline.types import InputSpec, ModelRecord, Site

TEMPORAL, SPATIAL = "temporal", "spatial"


@dataclass(frozen=True)
class TimeSformerConfig:
    """Architecture of a TimeSformer.

    Attributes:
        frames: Frames per clip.
        size: Height and width of a clip in pixels.
        num_classes: Number of classes.
        attention: ``divided`` (over the frames at each place, then within each frame) or ``joint`` (among all tokens).
        patch: Height and width of a patch in pixels.
        width: Channels of a token.
        depth: Number of layers.
        heads: Heads per attention site.
        mlp_ratio: Width of the MLP relative to the tokens'.
        drop_path: Largest stochastic depth rate; layers get it in proportion to their depth.
    """

    frames: int = 16
    size: int = 224
    num_classes: int = 400
    attention: str = "divided"
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if self.attention not in ("divided", "joint"):
            raise ValueError(f"TimeSformer's attention must be 'divided' or 'joint', got {self.attention!r}.")
        check_sizes("TimeSformer", self.frames, self.size, (1, self.patch, self.patch), self.width, self.heads)


class DividedLayer(JointLayer):
    """Attention over the frames at each place, attention within each frame, then an MLP.

    Order of a site's positions L in `HeadOutputs.heads`: ``temporal`` has place by place its frames, L = S * T, without
    the class token; ``spatial`` has frame by frame the class token's copy and the places, L = T * (1 + S). Groups of
    observations are places and frames. The class token leaves the spatial site as the mean over its copies.

    Where tokens were dropped, their cells are filled with the nearest tokens that are left, so that places and frames
    are whole; what comes out at the filled cells is discarded. Then L is K in ``temporal``, and in ``spatial`` T + K,
    the class token's copies first. Unless weights or keys are asked for, spatial attention computes only what is not
    discarded, see `sightline.backbones.parts.sparse_frames`; of temporal attention, whose groups are as small as the
    clip is short, nothing worth it could be left out.
    """

    def __init__(
        self, index: int, width: int, heads: int, mlp_ratio: float, drop_path: float, grid: Size3, patch: Size3
    ) -> None:
        super().__init__(index, SelfAttention(width, heads), mlp_ratio, drop_path, grid, patch)
        self.temporal_norm1 = layer_norm(width)
        self.temporal_attn = SelfAttention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self._merged = MergedLinear()

    @property
    def sites(self) -> tuple[Site, ...]:
        return (Site(TEMPORAL, self.temporal_attn.heads), Site(SPATIAL, self.attn.heads))

    def attend(
        self,
        state: TokenState,
        site: str,
        weights: bool = False,
        keys: bool = False,
        features: Collection[Feature] = (),
    ) -> HeadOutputs:
        attn = self.temporal_attn if site == TEMPORAL else self.attn
        if not state.is_dense:
            norm = self.temporal_norm1 if site == TEMPORAL else self.norm1
            if site == SPATIAL and (kept := kept_sparse(state)) is not None and not (weights or keys):
                return attn.attend_frames(norm(state.tokens), kept, features)
            rows = _filled_groups(state, site)
            outputs = attn.attend(norm(state.tokens), weights, keys, rows=rows, features=features)
            return replace(outputs, heads=take_rows(outputs.heads, _own_places(state, site)))
        if site == TEMPORAL:
            places = state.tokens[:, 1:].unflatten(1, _frames_and_places(state)).transpose(1, 2)  # (B, S, T, D)
            outputs = attn.attend(self.temporal_norm1(places), weights, keys, features=features)
            # The class token takes no part.
            found = {n: F.pad(p.transpose(1, 2).flatten(1, 2), (0, 0, 0, 0, 1, 0)) for n, p in outputs.features.items()}
            return replace(outputs, features=found)
        outputs = attn.attend(self._frames(state), weights, keys, features=features)
        found = {n: torch.cat((p[:, 0, :1], p[:, :, 1:].flatten(1, 2)), dim=1) for n, p in outputs.features.items()}
        return replace(outputs, features=found)

    def attend_class(self, state: TokenState, site: str) -> HeadOutputs:
        if state.is_dense:
            return HeadOutputs(self.attn.attend_first(self._frames(state)), class_only=True)
        if (kept := kept_sparse(state)) is not None:
            return HeadOutputs(self.attn.attend_class_in_frames(self.norm1(state.tokens), kept), class_only=True)
        rows = _filled_groups(state, site)
        return HeadOutputs(self.attn.attend_first(self.norm1(state.tokens), rows=rows), class_only=True)

    def _frames(self, state: TokenState) -> Tensor:
        """Normalise the tokens for spatial attention, each frame with its copy of the class token, (B, T, 1 + S, D)."""
        grid = _frames_and_places(state)
        x = self.norm1(state.tokens)
        class_copies = x[:, None, :1].expand(-1, grid[0], -1, -1)
        return torch.cat((class_copies, x[:, 1:].unflatten(1, grid)), dim=2)

    def project(self, state: TokenState, site: str, attended: HeadOutputs) -> TokenState:
        if attended.class_only:
            state = state.only_class_tokens()
            return state.with_tokens(state.tokens + self.attn.proj(attended.merged()).mean(dim=1, keepdim=True))
        if not state.is_dense:
            return state.with_tokens(state.tokens + self._sparse_update(attended.merged(), state.grid[0], site))
        grid = t, s = _frames_and_places(state)
        class_token, patches = state.tokens[:, :1], state.tokens[:, 1:].unflatten(1, grid)
        if site == TEMPORAL:
            patches = patches + self._temporal_update(attended.merged(), t).transpose(1, 2)
        else:
            update = self.attn.proj(attended.merged()).unflatten(1, (t, 1 + s))
            update = self.drop_path(update.flatten(0, 1)).view_as(update)
            class_token = class_token + update[:, :, 0].mean(dim=1, keepdim=True)
            patches = patches + update[:, :, 1:]
        return state.with_tokens(torch.cat((class_token, patches.flatten(1, 2)), dim=1))

    def _temporal_update(self, heads: Tensor, frames: int) -> Tensor:
        """Turn the concatenated heads (B, S * T, h * d) into what is added to the patches, (B, S, T, D)."""
        heads = heads.unflatten(1, (-1, frames))
        merged = None if self.training else self._merged.of(self.temporal_attn.proj, self.temporal_fc)
        if merged is not None:
            return linear(heads, *merged)
        update = self.temporal_attn.proj(heads)
        # As in the official code, stochastic depth drops single places here and single frames in spatial attention.
        return self.temporal_fc(self.drop_path(update.flatten(0, 1)).view_as(update))

    def _sparse_update(self, heads: Tensor, frames: int, site: str) -> Tensor:
        """Turn the concatenated heads of the tokens that are left into what is added to these, (B, N, D).

        Stochastic depth drops whole clips here: no place and no frame need be whole.
        """
        if site == TEMPORAL:
            merged = None if self.training else self._merged.of(self.temporal_attn.proj, self.temporal_fc)
            if merged is not None:
                return F.pad(linear(heads, *merged), (0, 0, 1, 0))
            return F.pad(self.temporal_fc(self.drop_path(self.temporal_attn.proj(heads))), (0, 0, 1, 0))
        return _mean_class_copies(self.drop_path(self.attn.proj(heads)), frames)

    def _temporal_weight(self, position: int) -> Tensor:
        """Return what turns one temporal head into its part of the update, (D, d)."""
        merged = self._merged.of(self.temporal_attn.proj, self.temporal_fc)
        if merged is None:
            return self.temporal_fc.weight @ self.temporal_attn.output_weight(position)
        d = self.temporal_attn.head_width
        return merged[0][:, position * d : (position + 1) * d]

    def contribution(self, state: TokenState, site: str, attended: HeadOutputs, position: int) -> Tensor:
        head = attended.heads[:, :, position]
        if attended.class_only:
            return linear(head.mean(dim=1, keepdim=True), self.attn.output_weight(position))
        t, s = _frames_and_places(state)
        if site == TEMPORAL:
            patches = linear(head, self._temporal_weight(position))
            if state.is_dense:
                patches = patches.unflatten(1, (s, t)).transpose(1, 2).flatten(1, 2)
            return F.pad(patches, (0, 0, 1, 0))  # nothing for the class token
        if not state.is_dense:
            return _mean_class_copies(linear(head, self.attn.output_weight(position)), t)
        update = linear(head, self.attn.output_weight(position)).unflatten(1, (t, 1 + s))
        return torch.cat((update[:, :, 0].mean(dim=1, keepdim=True), update[:, :, 1:].flatten(1, 2)), dim=1)

    def train(self, mode: bool = True) -> DividedLayer:
        self._merged.clear()  # not every optimiser's kernel counts a tensor's versions
        return super().train(mode)

    def layout(self, state: TokenState, site: str) -> AttentionLayout:
        """Temporal: a map is the sum over all T queries of a place. Spatial: the class token's row of each frame."""
        t, s = _frames_and_places(state)
        own = torch.arange(t * s, device=state.tokens.device).view(1, t, s)
        cells = own if state.kept is None else state.kept.standing_in.view(-1, t, s)
        copies = None if state.is_dense else cells != own
        if site == TEMPORAL:
            cells, copies = cells.transpose(1, 2), None if copies is None else copies.transpose(1, 2)
            weights = torch.ones(cells.shape, device=cells.device)
            if copies is not None:
                # The T queries of a place are then those of its tokens that are left; a place without any has none.
                left = (~copies).float()
                weights = left * t / left.sum(dim=2, keepdim=True).clamp(min=1)
                if state.kept is not None and state.kept.sizes is not None:
                    # Each patch of a token counts: what they all attend to is shared out among them again.
                    weights = weights * state.kept.sizes_at_cells.view(-1, t, s).transpose(1, 2)
        else:
            cells = F.pad(cells, (1, 0), value=CLASS_TOKEN)
            copies = None if copies is None else F.pad(copies, (1, 0))
            weights = (cells == CLASS_TOKEN).float()
        merged = None if state.kept is None else state.kept.merged_into
        return AttentionLayout(self.grid, self.patch, cells, weights, copies, merged)

    def remove_heads(self, site: str, positions: Collection[int]) -> None:
        (self.temporal_attn if site == TEMPORAL else self.attn).remove_heads(positions)


def _frames_and_places(state: TokenState) -> tuple[int, int]:
    """Return (T, S)."""
    t, h, w = state.grid
    return t, h * w


def _filled_groups(state: TokenState, site: str) -> Tensor:
    """Which token stands at every place of every group once dropped cells are filled, (B, S, T) or (B, T, 1 + S)."""
    filling = state.filling()
    cells = filling[:, 1:].unflatten(1, _frames_and_places(state))
    if site == TEMPORAL:
        return cells.transpose(1, 2)
    return torch.cat((filling[:, :1, None].expand(-1, cells.shape[1], -1), cells), dim=2)


def _own_places(state: TokenState, site: str) -> Tensor:
    """Place, in the site's order, of each token that is left; in spatial attention the class token's copies first."""
    t, s = _frames_and_places(state)
    cells = state.cell_numbers().clamp(min=0)
    if site == TEMPORAL:
        return cells % s * t + cells // s
    copies = torch.arange(t, device=cells.device).expand(cells.shape[0], -1) * (1 + s)
    return torch.cat((copies, cells // s * (1 + s) + 1 + cells % s), dim=1)


def _mean_class_copies(update: Tensor, frames: int) -> Tensor:
    """Turn (B, T + K, D), the class token's copies first, into (B, 1 + K, D) with their mean."""
    return torch.cat((update[:, :frames].mean(dim=1, keepdim=True), update[:, frames:]), dim=1)


class TimeSformer(BlockStack):
    """TimeSformer: patches of single frames, a class token, learned positions of place and frame."""

    family = "timesformer"
    end_layers = 1
    reads_class_tokens = True
    no_weight_decay = frozenset({"pos_embed", "time_embed", "cls_token"})  # as in the official code
    config: TimeSformerConfig

    def __init__(self, config: TimeSformerConfig, record: ModelRecord | None = None) -> None:
        blocks: list[JointLayer] = []
        side, patch = config.size // config.patch, (1, config.patch, config.patch)
        grid: Size3 = (config.frames, side, side)
        for index in range(config.depth):
            rate = drop_path_rate(config.drop_path, index, config.depth)
            if config.attention == "divided":
                blocks.append(DividedLayer(index, config.width, config.heads, config.mlp_ratio, rate, grid, patch))
            else:
                attn = SelfAttention(config.width, config.heads)
                blocks.append(JointLayer(index, attn, config.mlp_ratio, rate, grid, patch))
        super().__init__(config, InputSpec(config.frames, config.size, config.size), blocks, record)
        self.dropped_tokens = "filled" if config.attention == "divided" else "left_out"
        self.grid = grid
        self.side = side
        self.patch_embed = PatchEmbed(config.size, config.patch, 3, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2 + 1, config.width))
        self.time_embed = nn.Parameter(torch.empty(1, config.frames, config.width))
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.norm = layer_norm(config.width)
        for parameter in (self.pos_embed, self.time_embed, self.cls_token):
            nn.init.trunc_normal_(parameter, std=0.02)

    def tokenize(self, pixels: Tensor) -> TokenState:
        b, _, t, _, _ = pixels.shape
        x = self.patch_embed(pixels.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t))  # (B, T, S, D)
        x = x + (self.pos_embed[:, 1:].unsqueeze(1) + self.time_embed.unsqueeze(2))
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(b, -1, -1)
        tokens = torch.cat((class_token, x.flatten(1, 2)), dim=1)
        return TokenState(tokens, grid=(t, self.side, self.side), class_tokens=1)

    def classify(self, state: TokenState) -> Tensor:
        return self.head(self.norm(state.tokens[:, 0]))

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Interpolate ``time_embed`` (nearest) and ``pos_embed`` (bicubic) to this model's frames and size.

        Raises:
            ValueError: If the patch positions form no square grid.
        """
        adapted, said = dict(tensors), []
        frames, side = self.time_embed.shape[1], self.side
        time, place = adapted.get("time_embed"), adapted.get("pos_embed")
        if time is not None and time.shape[1] != frames:
            nearest = F.interpolate(time.float().transpose(1, 2), size=frames, mode="nearest")
            adapted["time_embed"] = nearest.transpose(1, 2).to(time.dtype)
            said.append(f"time_embed was interpolated from {time.shape[1]} to {frames} frames (nearest).")
        if place is not None and place.shape[1] != self.pos_embed.shape[1]:
            old = math.isqrt(place.shape[1] - 1)
            if old**2 != place.shape[1] - 1:
                raise ValueError(
                    f"pos_embed holds {place.shape[1] - 1} patch positions, which form no square grid; expected "
                    f"{side}x{side} or another square. Interpolate it before loading."
                )
            adapted["pos_embed"] = resample_abs_pos_embed(place, [side, side], [old, old])
            said.append(f"pos_embed was interpolated from {old}x{old} to {side}x{side} patches (bicubic).")
        return adapted, said
