"""The definition, literally and slowly: set one head's attention matrix to zero and run the whole model.

Written on torchvision's own blocks and weights, so it shares no code with what it checks.
"""

import torch
from torchvision.models.video import swin_transformer as tv


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
