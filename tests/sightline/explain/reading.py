"""A classifier of two classes that is known to read one part of the clip alone: what any right method has to find."""

from __future__ import annotations

import torch

from sightline.backbones import Backbone
from sightline.backbones.families.vit import ViT, ViTConfig
from tests.sightline.explain.planted import IDENTITY, _sum_patch

CONFIG = ViTConfig(frames=4, size=32, num_classes=2, patch=(1, 8, 8), width=16, depth=2, heads=2)
GRID, CELL = (4, 4, 4), (2, 1, 2)  # the cell that is read: frame 2, second row, third column
STRAIGHT, THROUGH_ATTENTION = "straight", "attention"


@torch.no_grad()
def reader(how: str) -> Backbone:
    """Return a ViT whose logit of class 1 grows with the brightness of one cell.

    ``straight``: the cell's own token carries it to the classifier's mean; the attention layers add nothing.
    ``attention``: every token fetches it from the cell by attention in layer 1, and what tokens hold themselves does
    not reach the classifier.
    """
    backbone = ViT(CONFIG, IDENTITY).eval()
    for name, parameter in backbone.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    _sum_patch(backbone.patch_embed.proj)
    backbone.patch_embed.proj.weight /= 3 * 64  # channel 0: the mean brightness of the patch
    _patch_norms(backbone)
    t, y, x = CELL
    number = (t * GRID[1] + y) * GRID[2] + x
    backbone.pos_embed.zero_()
    backbone.pos_embed[:, number, 1] = 1.0  # channel 1 marks the cell
    d = CONFIG.width // CONFIG.heads
    if how == THROUGH_ATTENTION:
        attn = backbone.blocks["1"].attn
        attn.q_bias[0] = 60.0  # head 0 asks for the mark, so sharply that nothing else is fetched
        attn.qkv.weight[CONFIG.width, 1] = 1.0
        attn.qkv.weight[2 * CONFIG.width, 0] = 1.0  # and fetches brightness
        attn.proj.weight[2, 0] = 1.0  # into channel 2
    else:
        # The marked token's brightness alone passes: a unit of its MLP that the mark opens.
        mlp = backbone.blocks["1"].mlp
        mlp.fc1.weight[0, 0], mlp.fc1.weight[0, 1], mlp.fc1.bias[0] = 8.0, 16.0, -16.0
        mlp.fc2.weight[2, 0] = 1.0
    backbone.head.weight[1, 2] = 12.0 if how == THROUGH_ATTENTION else 16.0
    backbone.head.bias[0] = 3.0
    assert d == 8
    return backbone.requires_grad_(False)


def _patch_norms(backbone: Backbone) -> None:
    """Make every LayerNorm the identity, so that channels stay what they are."""
    for name, module in list(backbone.named_modules()):
        if name.endswith(("norm1", "norm2")) or name in ("norm", "fc_norm"):
            parent = backbone.get_submodule(name.rpartition(".")[0]) if "." in name else backbone
            setattr(parent, name.rpartition(".")[2], torch.nn.Identity())


def clips(count: int = 3) -> torch.Tensor:
    """Clips of noise in which the cell that is read is bright."""
    found = torch.rand(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3
    t, y, x = CELL
    found[:, :, t, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 1.0
    return found


def where(values: torch.Tensor) -> list[tuple[int, int, int]]:
    """Return the cell of the highest value of every map (B, T, H, W)."""
    h, w = values.shape[2:]
    return [(p // (h * w), p // w % h, p % w) for p in values.flatten(1).argmax(dim=1).tolist()]
