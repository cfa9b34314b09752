"""Operators that the converter to ONNX lacks or translates wrongly; arguments are those of PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def _conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Any:
    """Translate aten::conv3d without a bias where it has none.

    onnxscript 0.7.2 makes one up then, of a wrong shape, which runtimes refuse.
    """
    from onnxscript import opset18

    inputs = (input, weight) if bias is None else (input, weight, bias)
    pads = [*padding, *padding]
    return opset18.Conv(*inputs, strides=[*stride], pads=pads, dilations=[*dilation], group=groups)


def _stable_sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Translate aten::sort.stable, which onnxscript 0.7.2 lacks.

    The first K of a dimension of size K are all of it in order, and of equals TopK takes those in front first.
    """
    from onnxscript import opset18

    place: Any = opset18.Constant(value_ints=[dim])
    size: Any = opset18.Gather(opset18.Shape(self), place)
    return opset18.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.conv3d.default: _conv3d,
    torch.ops.aten.sort.stable: _stable_sort,
}
