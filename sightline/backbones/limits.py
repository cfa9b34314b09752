"""How large a configuration may be, so that a few bytes of a file cannot ask for more memory than there is.

Far above every model that is published, far below what stops a machine. What really fits is said by the weights: see
`sightline.checkpoints.fitting`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

MOST = 2**16
"""Of any whole number: classes, frames, pixels, channels."""
MOST_LAYERS = 1000
MOST_STAGES = 16
MOST_RATIO = 64.0
MOST_CLIP_BYTES = 2**32
_LAYERS = ("depth", "depths")


def check_limits(config: Any, name: str) -> None:
    """Check the sizes in a backbone's configuration.

    Args:
        config: A family's configuration.
        name: The backbone's registered name, for the message.

    Raises:
        ValueError: If a size is not positive, or larger than any model that could be meant.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if len(numbers) > MOST_STAGES:
            raise ValueError(f"{field.name} of {name} has {len(numbers)} entries; at most {MOST_STAGES} can be meant.")
        for number in numbers:
            if type(number) is int and not 1 <= number <= MOST:
                raise ValueError(f"{field.name} of {name} must be from 1 to {MOST}, got {number}.")
            if isinstance(number, float) and not (math.isfinite(number) and 0 <= number <= MOST_RATIO):
                raise ValueError(f"{field.name} of {name} must be from 0 to {MOST_RATIO:g}, got {number:g}.")
        if field.name in _LAYERS and sum(numbers) > MOST_LAYERS:
            raise ValueError(f"{name} would have {sum(numbers)} layers; at most {MOST_LAYERS} can be meant.")
    if 3 * config.frames * config.size**2 > MOST_CLIP_BYTES:
        raise ValueError(
            f"A clip of {config.frames} frames of {config.size} pixels, as {name} would take it, has more than "
            f"{MOST_CLIP_BYTES / 2**30:.0f} GiB. Give a smaller size or fewer frames."
        )
