"""Which amount of a token reduction keeps a given share of the tokens, so that methods are compared at equal shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.tokens.spec import TokenReduction
from sightline.tokens.tracing import kept_share

# Shares are means in single precision.
EXACT = 1e-6


def at_kept(tokens: TokenReduction, backbone: Backbone, kept: float, clips: Tensor) -> tuple[TokenReduction, float]:
    """Return a reduction with the amount whose kept share comes nearest to ``kept``, and that share.

    Not every share can be reached: layers that run before anything is dropped count as whole (the first stage of Video
    Swin and MViT), and a method may drop in coarse steps. What comes back is then the nearest that can, and the share
    says how far that is.

    Args:
        tokens: The method and its other options.
        backbone: What runs, in evaluation mode.
        kept: Share of the tokens to keep, mean over layers, as `kept_share` counts it.
        clips: What to measure it on, (B, 3, T, H, W), one after the other, on any device. Where the number kept depends
            on the clip it is the mean over them; otherwise the first alone runs, and the share is exact.

    Raises:
        ValueError: If the share is not above 0 and at most 1, there is no clip, or the method cannot work with this
            backbone.
    """
    if not 0 < kept <= 1:
        raise ValueError(f"The share of tokens to keep must be above 0 and at most 1, got {kept:g}.")
    if not len(clips):
        raise ValueError("The share of tokens that is kept is measured on clips; expected at least one, got none.")
    amounts = tokens.build().amounts(backbone)
    measured = clips[:1] if all(amount.equal_counts for amount in amounts) else clips
    device = next(backbone.parameters()).device

    def share(index: int) -> float:
        each = [kept_share(backbone, clip.to(device), amounts[index]) for clip in measured.split(1)]
        return float(torch.cat(each).double().mean())

    index, found = nearest_amount(share, len(amounts), kept)
    chosen = amounts[index]
    options = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    return TokenReduction.of(tokens.name, options), found


def nearest_amount(share: Callable[[int], float], amounts: int, wanted: float) -> tuple[int, float]:
    """Return an index whose share is as near as any to the one wanted, and its share.

    Every share costs a run of the model. They fall evenly with the index for most methods: the first guess takes that
    for granted, and a straight line between two shares then finds the next. Where they do not, every other step halves
    what is left.

    Args:
        share: Kept share of an amount by its index, falling from 0 to ``amounts`` - 1; asked once for each.
        amounts: How many there are.
        wanted: Above 0 and at most 1.
    """
    guess = min(round((1 - wanted) * amounts), amounts - 1)
    shares = {guess: share(guess)}
    if abs(shares[guess] - wanted) < EXACT:
        return guess, shares[guess]
    end = amounts - 1 if shares[guess] > wanted else 0
    if end != guess:
        shares[end] = share(end)
    if (shares[end] > wanted) == (shares[guess] > wanted):
        return end, shares[end]  # no amount comes nearer
    low, high = sorted((guess, end))
    straight = True
    while high - low > 1:
        middle = (low + high) // 2
        if straight:
            from_low = (high - low) * (shares[low] - wanted) / (shares[low] - shares[high])
            middle = min(max(low + round(from_low), low + 1), high - 1)
        straight = not straight
        shares[middle] = share(middle)
        if abs(shares[middle] - wanted) < EXACT:
            return middle, shares[middle]
        low, high = (middle, high) if shares[middle] > wanted else (low, middle)
    nearest = low if shares[low] - wanted <= wanted - shares[high] else high
    return nearest, shares[nearest]
