"""The number format in which an ablation runs its forward passes, whatever the process has set for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def forward_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run what is within in a number format, and restore what was set before.

    Args:
        precision: ``float32``; ``tf32``, in which an NVIDIA GPU rounds the factors of matrix products to 10 bits; or
            ``bf16``, in which matrix products round to 8 bits (autocast).
        device: Where the model runs.

    Raises:
        ValueError: If the precision is unknown, or is tf32 on a device that has none.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
    on_gpu = device.type == "cuda"
    if precision == "tf32" and not on_gpu:
        raise ValueError(f"precision tf32 is a format of NVIDIA GPUs; the model is on {device.type}. Use float32.")
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        if on_gpu:
            # A convolution uses TF32 by default, and a training may have allowed it for products too.
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        if on_gpu:
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions
