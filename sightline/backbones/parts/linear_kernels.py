"""Whether a CPU runs linear layers by PyTorch's own kernels or by oneDNN's: what was faster when both were measured.

Both are in the same PyTorch and differ in rounding alone. PyTorch hands float32 products to MKL, which on some
processors uses half of what they can do; oneDNN is called by an operator that PyTorch keeps for its compiler. That
operator is private, so it is looked for, and PyTorch's own path stands in where it is missing or fails.

What decides is how many multiply-adds a product has: a call of oneDNN costs more, and computes faster. So both are
measured on a ladder of sizes, once in a process and number of threads. `sightline.backbones.stored_kernels` keeps what
was found with a run.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN = "SIGHTLINE_PLAIN_LINEAR"
"""Set to 1 in the environment, it leaves all linear layers to PyTorch's own kernels."""
FEW_ROWS = 16
"""Products of fewer rows (class tokens, classifiers) are PyTorch's: they are bound by reading the weight."""
SIZES = (2**20, 2**22, 2**24, 2**26, 2**28)
"""Multiply-adds at which both are measured. Each stands for what lies up to the next; what is smaller is PyTorch's."""
MARGIN = 1.25
"""How many times faster oneDNN has to be. Where it is worth it, it is about twice as fast; what is nearly as fast must
not be told apart by noise, because runs that choose otherwise differ in rounding."""
TOLERANCE = 1e-5
"""How far the two may be apart, relative to the largest value."""
# Forms in which a size is measured, by their rows; the weight is square.
_FORMS = (1024, 64)
_REPEATS = 9
_OPERATIONS = 2**25  # of what is timed at once: about half a millisecond
_SECONDS_PER_FORM = 0.25  # on a slow or busy machine; three repeats are made all the same

Kernel = Literal["onednn", "pytorch"]
OneDNN = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Measured:
    """What was found out about products of a size.

    Attributes:
        kernel: What runs them.
        times_faster: Time of PyTorch's own kernel by that of oneDNN's, in the form where that is least.
        largest_difference: Between the two, relative to the largest value.
    """

    kernel: Kernel
    times_faster: float
    largest_difference: float

    def __post_init__(self) -> None:
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"A kernel is one of {', '.join(get_args(Kernel))}, got {self.kernel!r}.")


@dataclass(frozen=True)
class LinearKernels:
    """The choice for products of all sizes.

    Attributes:
        sizes: By the multiply-adds from which it holds, see `SIZES`, in ascending order.
    """

    sizes: Mapping[int, Measured] = field(default_factory=dict)

    def kernel(self, multiply_adds: int) -> Kernel:
        """Return what runs a product of this size."""
        found: Kernel = "pytorch"
        for size, measured in self.sizes.items():
            if size > multiply_adds:
                break
            found = measured.kernel
        return found


def find_onednn() -> OneDNN | None:
    """Return oneDNN's linear layer without gradients, None where this PyTorch has none that works."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        operator: Any = torch.ops.mkldnn._linear_pointwise.default

        def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            out: Tensor = operator(x, weight, bias, "none", [], "")
            return out

        with torch.no_grad():
            probe = torch.eye(4, dtype=torch.float32, device="cpu")
            if not torch.equal(onednn(probe, 2 * probe, probe[0]), 2 * probe + probe[0]):
                return None
        _let_counters_know(torch.ops.mkldnn._linear_pointwise)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return onednn


def _let_counters_know(operator: Any) -> None:
    """Tell PyTorch's counter of operations of an operator, which it would take for one without any."""
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    if operator not in flop_registry:
        register_flop_formula(operator)(lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0])


def measure() -> LinearKernels:
    """Measure both kernels on this machine with the threads that PyTorch has: about 0.3 s."""
    threads, found = torch.get_num_threads(), []

    def work() -> None:
        torch.set_num_threads(threads)  # OpenMP's number belongs to the thread
        found.append(_measured_sizes())

    # A thread of its own has none of the caller's modes: autocast, counting of operations or of memory, gradients.
    thread = threading.Thread(target=work, name="measuring linear layers")
    thread.start()
    thread.join()
    return found[0] if found else LinearKernels()


@torch.no_grad()
def _measured_sizes() -> LinearKernels:
    onednn = find_onednn()
    if onednn is None:
        return LinearKernels()
    try:
        return LinearKernels({size: _measured_size(onednn, size) for size in SIZES})
    except RuntimeError:  # an operator that exists and does not work for some sizes
        return LinearKernels()


def _measured_size(onednn: OneDNN, size: int) -> Measured:
    ratios, differences = zip(*(_compared(onednn, rows, math.isqrt(size // rows)) for rows in _FORMS), strict=True)
    faster, difference = min(ratios), max(differences)
    # Written so that a difference of NaN is not taken for a small one.
    better = faster >= MARGIN and all(d <= TOLERANCE for d in differences)
    return Measured("onednn" if better else "pytorch", round(faster, 3), difference)


def _compared(onednn: OneDNN, rows: int, width: int) -> tuple[float, float]:
    """Return how many times faster oneDNN is, and the relative difference.

    Of processor time, into which what other programs do on a busy machine hardly enters.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, width), (width, width), (width,))
    x, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float32, device="cpu") for s in shapes)
    weight /= math.sqrt(width)
    kernels: tuple[OneDNN, OneDNN] = (F.linear, onednn)
    own, other = (kernel(x, weight, bias) for kernel in kernels)  # warms up too
    difference = float((own - other).abs().max() / own.abs().max())
    passes = max(1, _OPERATIONS // (rows * width**2))
    shortest = [math.inf, math.inf]
    began = time.perf_counter()
    for repeat in range(_REPEATS):
        if repeat >= 3 and time.perf_counter() - began > _SECONDS_PER_FORM:
            break
        for place, kernel in enumerate(kernels):  # in turns: what else happens strikes both
            start = time.process_time()
            for _ in range(passes):
                kernel(x, weight, bias)
            shortest[place] = min(shortest[place], time.process_time() - start)
    return shortest[0] / shortest[1], difference


class _Chosen:
    """What this process goes by, by number of threads, and the operator."""

    def __init__(self) -> None:
        self.by_threads: dict[int, LinearKernels] = {}
        self.lock = threading.Lock()
        self.onednn = find_onednn()

    def of(self, threads: int) -> LinearKernels:
        found = self.by_threads.get(threads)
        if found is None:
            with self.lock:
                found = self.by_threads.get(threads)
                if found is None:
                    found = self.by_threads[threads] = measure()
        return found


_CHOSEN: _Chosen | None = None


def _chosen() -> _Chosen:
    global _CHOSEN
    if _CHOSEN is None:  # not at import: the command line imports this for --help too
        _CHOSEN = _Chosen()
    return _CHOSEN


def is_plain() -> bool:
    """Whether the environment leaves everything to PyTorch's own kernels."""
    return os.environ.get(PLAIN, "0") not in ("", "0")


def current_kernels() -> LinearKernels:
    """Return what this process goes by with the threads that it has now; measured where nothing was settled yet."""
    return LinearKernels() if is_plain() else _chosen().of(torch.get_num_threads())


def use_kernels(kernels: LinearKernels) -> None:
    """Let this process go by a choice from now on, with the threads that it has now."""
    _chosen().by_threads[torch.get_num_threads()] = kernels


@contextmanager
def using_kernels(kernels: LinearKernels) -> Iterator[None]:
    """Let this process go by a choice within."""
    by_threads, threads = _chosen().by_threads, torch.get_num_threads()
    before = by_threads.get(threads)
    by_threads[threads] = kernels
    try:
        yield
    finally:
        if before is None:
            by_threads.pop(threads, None)
        else:
            by_threads[threads] = before


def onednn_for(multiply_adds: int) -> OneDNN | None:
    """Return oneDNN's kernel where a product of this size is to run by it, None where PyTorch's own is to."""
    if is_plain() or not torch.backends.mkldnn.enabled:
        return None
    chosen = _chosen()
    if chosen.onednn is None or chosen.of(torch.get_num_threads()).kernel(multiply_adds) == "pytorch":
        return None
    return chosen.onednn
