"""Ending a fit or a test whose loss is no number, in all its processes together and with the clips' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

MOST_NAMES = 8
Item = TypeVar("Item")


class NotFiniteError(ValueError):
    """A loss or weights that are NaN or infinite; the message says where and since which clips."""


def of_all_processes(items: Sequence[Item]) -> list[Item]:
    """Return what all processes have, in the order of their ranks. Collective: all must call it equally often."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(items)
    parts: list[list[Item]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def listed(names: Sequence[str]) -> str:
    """Write the names of clips, not all where they are many."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}" or "none that could be read"
