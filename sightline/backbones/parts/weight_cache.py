"""What is computed from weights alone, kept until these change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Source:
    """A parameter as it was when something was built from it.

    Attributes:
        parameter: The parameter itself, so that a new one is told from an old one.
        memory: What it held, so that no later tensor can come to lie at the same address.
        version: Counted up by changes in place. A move or a new dtype gives the parameter other memory.
    """

    parameter: Tensor
    memory: Tensor
    version: int

    @staticmethod
    def of(parameter: Tensor) -> _Source:
        return _Source(parameter, parameter.detach(), parameter._version)

    def is_still(self, parameter: Tensor) -> bool:
        same = parameter is self.parameter and parameter._version == self.version
        return same and parameter.data_ptr() == self.memory.data_ptr() and parameter.dtype == self.memory.dtype


@dataclass(frozen=True)
class _Kept(Generic[Value]):
    key: object
    sources: list[_Source]
    value: Value

    def was_built_from(self, parameters: Sequence[Tensor]) -> bool:
        return len(parameters) == len(self.sources) and all(
            source.is_still(parameter) for source, parameter in zip(self.sources, parameters, strict=True)
        )


class WeightCache(Generic[Value]):
    """The last value built from some parameters, kept where no gradient is needed, with what it was built from."""

    def __init__(self) -> None:
        self._kept: _Kept[Value] | None = None

    def of(self, parameters: Sequence[Tensor], build: Callable[[], Value], key: object = None) -> Value:
        """Return what ``build`` gives for these parameters and this key.

        It is built anew, and not kept, where gradients are on, in a graph that is compiled or exported, and from
        parameters made in inference mode, which know no versions.
        """
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or any(p.is_inference() for p in parameters):
            return build()
        if self._kept is None or self._kept.key != key or not self._kept.was_built_from(parameters):
            self._kept = _Kept(key, [_Source.of(p) for p in parameters], build())
        return self._kept.value

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept = None

    def __getstate__(self) -> dict:
        # A copy has other parameters and would never find this again; it may be large.
        return {"_kept": None}
