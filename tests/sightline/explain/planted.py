"""Models whose weights are written by hand, so that one head of every site attends to bright patches of a black clip.

All layers pass their input on unchanged (output projections and MLPs are zero), so the brightness of a patch reaches
every layer in channel 0. There the planted head has constant queries and keys that read channel 0, so that whoever
asks attends to bright patches. All other heads attend to everything alike.
"""

import copy

import torch
from torch import nn

from sightline.backbones import Backbone
from sightline.backbones.families.mvit import MViT, MViTConfig
from sightline.backbones.families.mvit_attention import MultiscaleAttention
from sightline.backbones.families.timesformer import TimeSformer, TimeSformerConfig
from sightline.backbones.families.video_swin import VideoSwin, VideoSwinConfig
from sightline.backbones.families.vit import ViT, ViTConfig
from sightline.types import ModelRecord

HEAD = 1
IDENTITY = ModelRecord(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
STRENGTH = 3.0

SWIN = VideoSwinConfig(frames=8, size=32, width=16, depths=(2, 2), heads=(2, 4), window=(2, 4, 4), num_classes=3)
# 3x9x9 cells in windows of 2x4x4, then 3x5x5: padding in every direction, also of the clip itself.
SWIN_ODD = VideoSwinConfig(frames=5, size=34, width=16, depths=(2, 2), heads=(2, 4), window=(2, 4, 4), num_classes=3)
# Windows and strides of the published models, on frames of half the size.
SWIN_LARGE = VideoSwinConfig(frames=16, size=112, width=8, depths=(2, 2, 2, 2), heads=(2, 2, 2, 2), num_classes=3)
MVIT_LARGE = MViTConfig(frames=16, size=112, width=8, depths=(1, 2, 2, 2), heads=(2, 2, 2, 2), num_classes=3)
MVIT = MViTConfig(
    frames=6, size=32, width=16, depths=(1, 2, 1), heads=(2, 2, 4), kv_stride=(1, 4, 4), num_classes=3, drop_path=0
)  # fmt: skip
TIMESFORMER = TimeSformerConfig(frames=5, size=24, num_classes=3, patch=8, width=16, depth=2, heads=2)
VIT = ViTConfig(frames=6, size=24, num_classes=3, patch=(2, 8, 8), width=16, depth=2, heads=2)

# Model, and by hand for every layer: frames, rows and columns of the clip that one key stands for.
CASES = {
    "swin": (VideoSwin(SWIN, IDENTITY), {0: (2, 4, 4), 1: (2, 4, 4), 2: (2, 8, 8), 3: (2, 8, 8)}),
    "swin, padded": (VideoSwin(SWIN_ODD, IDENTITY), {0: (2, 4, 4), 1: (2, 4, 4), 2: (2, 8, 8), 3: (2, 8, 8)}),
    # Patches of 4 pixels; keys are pooled by 4, by 2, by 2 after halving, and by 1 before halving.
    "mvit": (MViT(MVIT, IDENTITY), {0: (2, 16, 16), 1: (2, 8, 8), 2: (2, 16, 16), 3: (2, 8, 8)}),
    "timesformer": (TimeSformer(TIMESFORMER, IDENTITY), {0: (1, 8, 8), 1: (1, 8, 8)}),
    "vit": (ViT(VIT, IDENTITY), {0: (2, 8, 8), 1: (2, 8, 8)}),
}
LARGE = {
    "swin": (VideoSwin(SWIN_LARGE, IDENTITY), {layer: (2, 4 << layer // 2, 4 << layer // 2) for layer in range(8)}),
    # Keys are pooled by 8 in the first stage and by half as much in each further one, before its first layer halves.
    "mvit": (
        MViT(MVIT_LARGE, IDENTITY),
        {layer: (2, 16, 16) if layer in (1, 3, 5) else (2, 32, 32) for layer in range(7)},
    ),
}


@torch.no_grad()
def planted(backbone: Backbone) -> Backbone:
    """Return a copy with these weights."""
    backbone = copy.deepcopy(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    if isinstance(backbone, ViT):
        backbone.pos_embed.zero_()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv3d | nn.Conv2d) and ".pool_" not in name:
            _sum_patch(module)
        elif isinstance(module, MultiscaleAttention):
            _plant_pooled(module)
        elif hasattr(module, "qkv"):
            _plant(module)
        elif name.endswith("reduction"):  # Video Swin's merging of four cells, one after the other
            module.weight[0, :: module.in_features // 4] = 1.0
        elif isinstance(module, nn.Linear) and name.endswith("project"):  # MViT's skip path
            module.weight[0, 0] = 1.0
    return backbone.eval()


def _sum_patch(convolution: nn.Conv3d | nn.Conv2d) -> None:
    """Channel 0 is the sum over the pixels of a patch, also where the kernel reaches beyond it."""
    places = [slice(pad, pad + step) for pad, step in zip(convolution.padding, convolution.stride, strict=True)]
    convolution.weight[(0, slice(None), *places)] = 1.0


def _plant(attention: nn.Module) -> None:
    width = len(attention.heads) * attention.head_width
    rows = slice(HEAD * attention.head_width, (HEAD + 1) * attention.head_width)
    attention.qkv.weight[width : 2 * width][rows, 0] = STRENGTH
    (attention.q_bias if hasattr(attention, "q_bias") else attention.qkv.bias)[rows] = 1.0


def _plant_pooled(attention: MultiscaleAttention) -> None:
    """Queries and keys are normalised after pooling, so they are a vector of mean zero."""
    d, width = attention.head_width, len(attention.heads) * attention.head_width
    vector = torch.tensor([1.0, -1.0]).repeat(d // 2)
    rows = slice(HEAD * d, (HEAD + 1) * d)
    attention.qkv.weight[width : 2 * width][rows, 0] = vector
    attention.qkv.bias[:width][rows] = vector
    for pool in (attention.pool_q, attention.pool_k):
        pool.pool.weight[:, :, 1, 1, 1] = 1.0  # the patch in the middle of the kernel alone
    attention.pool_k.norm_act[0].weight.fill_(STRENGTH)


def marked_clips(
    backbone: Backbone, steps: tuple[int, int, int], every: int = 1
) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
    """Black clips with one white patch each, at multiples of ``steps`` pixels; and its first pixel in each.

    All multiples, or every so many of them, counted row-major.
    """
    spec = backbone.input_spec
    patch = backbone.config.patch
    patch = (1, patch, patch) if isinstance(patch, int) else patch
    corners = [
        (t, y, x)
        for t in range(0, spec.frames, steps[0])
        for y in range(0, spec.height, steps[1])
        for x in range(0, spec.width, steps[2])
    ][::every]
    clips = torch.zeros(len(corners), 3, spec.frames, spec.height, spec.width)
    for clip, (t, y, x) in zip(clips, corners, strict=True):
        clip[:, t : t + patch[0], y : y + patch[1], x : x + patch[2]] = 1.0
    return clips, corners
