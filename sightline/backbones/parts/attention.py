"""Scaled dot-product attention, fused unless its weights were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

_COUNTING: ContextVar[bool] = ContextVar("counting", default=False)


@contextmanager
def counting() -> Iterator[None]:
    """Let every pass within run as published multiply-adds are counted: unfused, with nothing merged or folded."""
    token = _COUNTING.set(True)
    try:
        yield
    finally:
        _COUNTING.reset(token)


def only_counts(tensor: Tensor) -> bool:
    """Whether a pass only counts multiply-adds, of which the counters see none in a fused call.

    That is so on the meta device, and within `counting`.
    """
    return tensor.is_meta or (not torch.compiler.is_compiling() and _COUNTING.get())


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale * q k^T + bias) v by the fused kernel.

    Args:
        q: (B, h, n, d).
        k: (B, h, m, d).
        v: (B, h, m, d); a narrower v is never fused on the CPU.
        bias: Broadcasts to (B, h, n, m); boolean (true: may attend) or added to the logits.
        scale: 1 / sqrt(d) if None.
    """
    learned = bias is not None and bias.requires_grad and q.device.type == "cpu"
    if learned or only_counts(q) or not q.shape[1]:
        # No fused kernel takes a bias that is learned; PyTorch's fallback also looks for rows that are masked whole.
        # Where no head is left, the fused kernel of PyTorch 2.11 divides by zero and ends the process.
        return attention_with_weights(q, k, v, bias, scale)[0]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attention_with_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, step by step: returns the output (B, h, n, d) and the weights (B, h, n, m).

    Args:
        q: As of `attention`, and so are k, v, bias and scale.
        k: Likewise.
        v: Likewise.
        bias: Likewise.
        scale: Likewise.
        shape: What the weights are to be viewed as. The output is computed from that view, so that a gradient at the
            weights that are returned is that of the output.
    """
    logits = torch.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.transpose(-2, -1))
    if bias is not None:
        logits = logits.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else logits + bias
    weights = torch.softmax(logits, dim=-1)
    if shape is None:
        return torch.matmul(weights, v), weights
    viewed = weights.view(shape)
    return torch.matmul(viewed.view(weights.shape), v), viewed
