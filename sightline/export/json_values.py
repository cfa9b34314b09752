"""Reduction to what every reader understands: None, bool, int, float, str, and lists, tuples and dicts of these.

JSON takes nothing else, and ``torch.load(weights_only=True)`` refuses numpy scalars and paths.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, name: str) -> Any:
    """Return a value with numpy scalars and paths turned into Python's own.

    Args:
        value: The value, of any depth.
        name: What it is called in the message, e.g. ``hyper_parameters``.

    Raises:
        ValueError: If there is something else in it, or a number that is not finite; the message says where.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (str, int, float):  # subclasses, e.g. members of a StrEnum
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key, f"a key of {name}"): plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        entries = [plain(entry, f"{name}[{place}]") for place, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    raise ValueError(
        f"{name} is a {type(value).__name__}; expected None, bool, int, float, str, or lists and dicts of these."
    )


def as_json(value: Any) -> Any:
    """Return a plain value as it comes back from JSON: tuples as lists, keys as strings."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    return [as_json(entry) for entry in value] if isinstance(value, list | tuple) else value


def plain_config(config: Any) -> dict[str, Any]:
    """Return a backbone's configuration as it comes back from JSON."""
    return as_json(plain(dataclasses.asdict(config), "config"))
