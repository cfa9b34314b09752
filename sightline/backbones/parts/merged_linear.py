"""Two linear layers in a row, run as one where nobody can tell the difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sightline.backbones.parts.attention import only_counts
from sightline.backbones.parts.weight_cache import WeightCache


class MergedLinear:
    """Weight and bias of ``second(first(x))``, kept until a parameter of either layer changes.

    Not a module: the two layers stay where they are, under their own names.
    """

    def __init__(self) -> None:
        self._cache: WeightCache[tuple[Tensor, Tensor]] = WeightCache()

    def of(self, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor] | None:
        """Return the weight and bias of both layers together, or None where they have to run one after the other.

        That is where gradients are on, in a graph that is compiled or exported, and where a pass only counts
        multiply-adds, which are published for the layers apart.
        """
        parameters = [first.weight, first.bias, second.weight, second.bias]
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        if any(only_counts(p) or p.is_inference() for p in parameters):
            return None
        return self._cache.of(parameters, lambda: _merge(first, second))

    def clear(self) -> None:
        """Forget what is kept."""
        self._cache.clear()


def _merge(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    dtype = first.weight.dtype
    exact = torch.promote_types(dtype, torch.float32)
    # Under autocast the product would be rounded, and then be used outside of it too.
    with torch.autocast(first.weight.device.type, enabled=False):
        outer = second.weight.to(exact)
        weight = outer @ first.weight.to(exact)
        bias = outer @ first.bias.to(exact) + second.bias.to(exact)
    return weight.to(dtype), bias.to(dtype)
