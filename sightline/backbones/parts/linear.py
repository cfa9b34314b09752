"""Linear layers: running them, drawing their first weights, and cutting rows and columns out of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.backbones.parts.attention import only_counts
from sightline.backbones.parts.linear_kernels import FEW_ROWS, SIZES, onednn_for


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias, without gradients on a CPU by whichever kernel was measured to be faster.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,).
    """
    if _is_plain(x, weight):
        return F.linear(x, weight, bias)
    onednn = onednn_for(x.numel() * weight.shape[0])
    if onednn is None:
        return F.linear(x, weight, bias)
    # Of some columns of a weight, as of one head, oneDNN makes a loop that is hundreds of times slower.
    return onednn(x.contiguous(), weight.contiguous(), bias)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one for PyTorch's own kernels, whatever is faster.

    That is where gradients are on, in a graph that is compiled, exported or traced, under autocast, where a pass only
    counts multiply-adds, outside of float32 on a CPU, and where there is little to compute.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.jit.is_tracing():
        return True
    if type(x) is not Tensor or x.dtype != torch.float32 or x.device.type != "cpu":
        return True
    if x.numel() * weight.shape[0] < SIZES[0] or x.numel() < FEW_ROWS * weight.shape[1]:
        return True
    if type(weight) not in (Tensor, nn.Parameter) or weight.dtype != torch.float32:
        return True
    return torch.is_autocast_enabled("cpu") or only_counts(x)


class Linear(nn.Linear):
    """A linear layer that runs by `linear`; its parameters are those of PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def take_over_linears(root: nn.Module) -> None:
    """Let PyTorch's linear layers within a module run by `linear`, those in blocks of other libraries too."""
    for module in root.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def smaller_linear(layer: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> Linear:
    """Return a linear layer of some output rows or input columns of another one, with copied parameters."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if rows is not None:
        weight = weight[rows.to(weight.device)]
        bias = None if bias is None else bias[rows.to(bias.device)]
    if columns is not None:
        weight = weight[:, columns.to(weight.device)]
    smaller = Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    smaller.weight = nn.Parameter(weight.clone())
    if bias is not None:
        smaller.bias = nn.Parameter(bias.clone())
    return smaller


def preserve_variance_(weight: Tensor) -> None:
    """Draw weights whose outputs have the variance of their inputs: deviation 1 / sqrt(inputs)."""
    nn.init.kaiming_normal_(weight, nonlinearity="linear")
