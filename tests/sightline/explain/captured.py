"""Softmax weights captured from the reference libraries while they run."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor


@contextmanager
def captured_softmax() -> Iterator[list[Tensor]]:
    """Collect the results of a tensor's softmax method in order; the function of that name calls it too."""
    found: list[Tensor] = []
    softmax = Tensor.softmax

    def keep(*args, **kwargs) -> Tensor:
        found.append(softmax(*args, **kwargs))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "softmax", keep)
        yield found
