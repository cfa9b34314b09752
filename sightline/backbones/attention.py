"""Scaled dot-product attention, fused unless its weights were asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v by the fused kernel, all (B, h, n, d); bias broadcasts to (B, h, n, n)."""
    if bias is not None and bias.requires_grad and q.device.type == "cpu":
        # No fused kernel takes a bias that is learned; PyTorch's fallback also looks for rows that are masked whole.
        return attention_with_weights(q, k, v, bias)[0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attention_with_weights(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same, step by step: returns the output and the weights (B, h, n, n)."""
    logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
    weights = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    return torch.matmul(weights, v), weights
