"""Several patches made one: means over them, and kept patches without places that stand empty in every clip.

Shapes: B clips, N patches before, K patches that are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sightline.backbones.contract.layout import NO_TOKEN


def merged_mean(values: Tensor, into: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Return the mean of what is merged into each kept patch, in which every patch counts with its size.

    Source: Bolya et al., "Token Merging: Your ViT But Faster", 2023 (section 3: tokens are averaged by their sizes). A
    patch that nothing is merged into keeps its value to the bit.

    Args:
        values: (B, N, ...).
        into: Position among the kept of what each patch is merged into, int64 (B, N); `NO_TOKEN` where it is dropped.
        sizes: Patches of the grid that each is made of, int64 (B, N).
        count: How many are kept, K.

    Returns:
        (B, K, ...), zeros where nothing is merged into a place.
    """
    # In single precision at least. One place more takes what is dropped.
    exact = torch.promote_types(values.dtype, torch.float32)
    slots = torch.where(into == NO_TOKEN, count, into)
    weights = sizes.to(exact)
    total = weights.new_zeros(weights.shape[0], count + 1).scatter_add(1, slots, weights)
    # Shares of 1 before anything is added up, so that no sum overflows.
    parts = values.flatten(2) if values.dim() > 2 else values.unsqueeze(2)
    parts = parts.to(exact) * (weights / total.gather(1, slots).clamp(min=1)).unsqueeze(2)
    added = parts.new_zeros(parts.shape[0], count + 1, parts.shape[2])
    added = added.scatter_add(1, slots.unsqueeze(2).expand_as(parts), parts)[:, :count]
    return added.to(values.dtype).view(values.shape[0], count, *values.shape[2:])


def without_empty(cells: Tensor, exists: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Drop the places of kept patches (B, K) at which no clip has one; the second is None where all exist then.

    One clip alone never carries a mask.
    """
    if exists is None:
        return cells, None
    used = exists.any(dim=0)
    cells, exists = cells[:, used], exists[:, used]
    return cells, None if bool(exists.all()) else exists


def counted_without_empty(into: Tensor, exists: Tensor | None) -> Tensor:
    """Count positions among the kept, (B, N), anew once the places that `without_empty` drops are gone."""
    if exists is None:
        return into
    return torch.where(into == NO_TOKEN, NO_TOKEN, (exists.any(dim=0).cumsum(0) - 1)[into.clamp(min=0)])
