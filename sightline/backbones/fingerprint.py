"""A hash that changes when a model's weights or structure change."""

from __future__ import annotations

import hashlib

import torch

from sightline.backbones.contract.backbone import Backbone


def weights_sha256(backbone: Backbone) -> str:
    """Hash every entry of the state dict (name, type, shape, bytes) and the normalisation."""
    digest = hashlib.sha256()
    digest.update(repr((backbone.config, backbone.record.mean, backbone.record.std, backbone.layers)).encode())
    for name, value in sorted(backbone.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(dtype=torch.uint8).numpy().data)
    return digest.hexdigest()
