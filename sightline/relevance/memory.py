"""How many variants of a batch run as one: found from the memory that one of them takes and from what is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The rest is for what else runs on the device, for fragmentation, and for kernels' own workspace.
_USED_SHARE = 0.5
# A CPU gains nothing from a larger stack once overheads are spread, and loses a little outside of its caches.
_CPU_BYTES = 64 * 2**20
_CGROUP_LIMITS = ((Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors made within that are alive at once.

    Attributes:
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


class StackSize:
    """The number of variants to run as one, layer by layer, because layers differ in what their variants take.

    The first variant of a layer runs alone and is measured; what follows goes by that, whatever the batch.
    """

    def __init__(self, largest: int | None = None) -> None:
        """Set up the choice.

        Args:
            largest: The most variants to run as one, however much memory is free.

        Raises:
            ValueError: If it is below 1.
        """
        if largest is not None and largest < 1:
            raise ValueError(f"The largest stack of variants must be at least 1, got {largest}.")
        self.largest = largest
        self._bytes_per_clip: dict[int, float] = {}
        self._budget: int | None = None

    def of(self, layer: int, clips: int, device: torch.device) -> int:
        """Return how many variants of a batch of ``clips`` clips to run as one after leaving a layer."""
        if layer not in self._bytes_per_clip:
            return 1
        if self._budget is None:
            self._budget = budget(device)
        size = max(1, int(self._budget / max(self._bytes_per_clip[layer] * clips, 1)))
        return size if self.largest is None else min(size, self.largest)

    @contextmanager
    def measured(self, layer: int, clips: int) -> Iterator[None]:
        """Run the first variant of a layer within."""
        if layer in self._bytes_per_clip:
            yield
            return
        with PeakMemory() as memory:
            yield
        self._bytes_per_clip[layer] = memory.peak / max(clips, 1)

    def halve(self, layer: int) -> None:
        """Take half as many from now on: the device ran out of memory after all."""
        self._bytes_per_clip[layer] *= 2


def budget(device: torch.device) -> int:
    """Return how many bytes the variants may take."""
    share = int(free_memory(device) * _USED_SHARE)
    return min(share, _CPU_BYTES) if device.type == "cpu" else share


def free_memory(device: torch.device) -> int:
    """Return how many bytes are free on a device, or to this process where a container limits it."""
    if device.type == "cuda":
        # What PyTorch's allocator holds without using it is free to us.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    free = _available()
    for limit, used in _CGROUP_LIMITS:
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


def _available() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2 * _CPU_BYTES  # elsewhere nothing says it; what a CPU is given by default needs no more
