"""The definition, literally and slowly: set one head's attention matrix to zero and run the whole model.

`logits_without` is written on torchvision's own blocks and weights, so it shares no code with what it checks;
`literal_logits` runs Sightline's models, of every family, without the ablation engine.
"""

import torch
from torchvision.models.video import swin_transformer as tv

from sightline.backbones.families import mvit_attention, video_swin_attention
from sightline.backbones.parts import joint_attention as vit_layers


def torchvision_twin(backbone) -> tv.SwinTransformer3d:
    c = backbone.config
    model = tv.SwinTransformer3d(
        list(c.patch), c.width, list(c.depths), list(c.heads), list(c.window), num_classes=c.num_classes
    )
    model.load_state_dict(backbone.state_dict())
    return model.eval()


@torch.no_grad()
def logits_without(backbone, clips: torch.Tensor, layer: int, head: int | None, monkeypatch) -> torch.Tensor:
    """Logits with one head's attention matrix zero; without a head, with the layer replaced by the identity."""
    model = torchvision_twin(backbone)
    blocks = [m for m in model.modules() if isinstance(m, tv.SwinTransformerBlock)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (backbone.record.mean, backbone.record.std))
    pixels = (clips / 255 - mean) / std
    if head is None:
        monkeypatch.setattr(blocks[layer], "forward", lambda x: x)
        return model(pixels)
    attention, softmax = blocks[layer].attn, tv.F.softmax

    def forward(x: torch.Tensor) -> torch.Tensor:
        def zeroed(logits: torch.Tensor, dim: int) -> torch.Tensor:
            weights = softmax(logits, dim=dim)  # (windows, heads, queries, keys)
            weights[:, head] = 0
            return weights

        with monkeypatch.context() as patch:
            patch.setattr(tv.F, "softmax", zeroed)
            return type(attention).forward(attention, x)

    monkeypatch.setattr(attention, "forward", forward)
    return model(pixels)


@torch.no_grad()
def literal_logits(backbone, clips: torch.Tensor, unit, monkeypatch) -> torch.Tensor:
    """Logits of any family with a head's attention matrix set to zero, or a layer passed over; the whole model runs.

    Attention is computed step by step in the place of the fused kernel, so that there is a matrix to set to zero.
    """
    if unit.is_layer:
        return backbone(clips, skip={unit.layer})
    layer = backbone.layer_modules()[unit.layer]
    site = next(s for s in layer.sites if s.name == unit.site)
    position, count = site.heads.index(unit.head), len(site.heads)
    inside, attend = [], layer.attend

    def marked(state, name, weights=False, keys=False, features=()):
        inside.append(name)
        try:
            return attend(state, name, weights, keys)
        finally:
            inside.pop()

    def stepwise(q, k, v, bias=None, scale=None):
        logits = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            logits = logits + bias
        weights = logits.softmax(-1)
        if unit.site in inside:
            # Where every window has a mask of its own, windows and heads share an axis; the head runs faster.
            weights[:, position::count] = 0
        return weights @ v

    with monkeypatch.context() as patch:
        patch.setattr(layer, "attend", marked)
        for module in (video_swin_attention, vit_layers, mvit_attention):
            patch.setattr(module, "attention", stepwise)
        return backbone(clips)
