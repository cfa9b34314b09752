"""Linear layers: drawing their first weights, and cutting rows and columns out of them."""

from __future__ import annotations

from torch import Tensor, nn


def smaller_linear(linear: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    """Return a linear layer of some output rows or input columns of another one, with copied parameters."""
    weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    if rows is not None:
        weight = weight[rows.to(weight.device)]
        bias = None if bias is None else bias[rows.to(bias.device)]
    if columns is not None:
        weight = weight[:, columns.to(weight.device)]
    smaller = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    smaller.weight = nn.Parameter(weight.clone())
    if bias is not None:
        smaller.bias = nn.Parameter(bias.clone())
    return smaller


def preserve_variance_(weight: Tensor) -> None:
    """Draw weights whose outputs have the variance of their inputs: deviation 1 / sqrt(inputs)."""
    nn.init.kaiming_normal_(weight, nonlinearity="linear")
