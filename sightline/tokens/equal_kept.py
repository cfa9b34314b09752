"""Which amount of a token reduction keeps a given share of the tokens, so that methods are compared at equal shares."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from sightline.backbones import Backbone
from sightline.tokens.spec import TokenReduction
from sightline.tokens.tracing import kept_share


def at_kept(tokens: TokenReduction, backbone: Backbone, kept: float, clips: Tensor) -> tuple[TokenReduction, float]:
    """Return a reduction with the amount whose kept share comes nearest to ``kept``, and that share.

    Args:
        tokens: The method and its other options.
        backbone: What runs, in evaluation mode.
        kept: Share of the tokens to keep, mean over layers, as `kept_share` counts it.
        clips: What to measure it on, (B, 3, T, H, W); one clip will do where every clip keeps equally many.

    Raises:
        ValueError: If the share is not above 0 and at most 1, or the method cannot work with this backbone.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"The share of tokens to keep must be above 0 and at most 1, got {kept:g}.")
    amounts = tokens.build().amounts(backbone)
    found: dict[int, float] = {}

    def share(index: int) -> float:
        if index not in found:
            found[index] = float(kept_share(backbone, clips, amounts[index]).mean())
        return found[index]

    low, high = 0, len(amounts) - 1  # more is dropped the higher the index
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if share(middle) >= kept else (low, middle)
    best = min((low, high), key=lambda index: (abs(share(index) - kept), index))
    chosen = amounts[best]
    options = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    return TokenReduction.of(tokens.name, options), share(best)
