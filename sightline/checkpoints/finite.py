"""Weights that hold no numbers: what a training that failed leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sightline.checkpoints.files import CheckpointError


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError where weights read from ``path`` hold NaN or infinite values."""
    if told := describe_not_finite(tensors):
        raise CheckpointError(
            f"{path} holds weights that are not finite: {told}. A model can say nothing with them. Take weights from "
            "before its training failed."
        )


def describe_not_finite(tensors: Mapping[str, Tensor], most: int = 3) -> str:
    """Say in one line which tensors hold NaN or infinite values, and how many; empty where none does.

    Args:
        tensors: A state dict; what holds whole numbers is always finite.
        most: How many tensors to name.
    """
    bad = {name: int((~tensor.isfinite()).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()}
    bad = {name: count for name, count in bad.items() if count}
    if not bad:
        return ""
    first = [f"{name} ({count:,} of {tensors[name].numel():,})" for name, count in list(bad.items())[:most]]
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    values = sum(bad.values())
    return f"{values:,} value{'s' if values > 1 else ''} in {', '.join(first)}{more} of {len(tensors)} tensors"
