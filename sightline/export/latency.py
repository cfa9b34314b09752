"""Measured latency and throughput of backbones, on the device and in the precision that they are in.

Machines are shared and drift, so models that are compared are timed in turns, in an order that rotates from round to
round, and medians are reported with their interquartile range. What is timed is what a user runs: uint8 clips that
already are on the device, normalisation, forward pass. What else the machine did meanwhile is told by the share of the
time in which this process waited for a core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sightline.backbones import Backbone
from sightline.backbones.contract.reducer import Reducer
from sightline.export.other_work import core_times, waited_pct


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass.

    Attributes:
        median_ms: Median over the repeats, in milliseconds per batch.
        iqr_ms: Interquartile range over the repeats, in milliseconds.
        clips_per_s: Clips per second at the median.
        batch: Clips per batch.
        clips_per_s_iqr: Interquartile range over the repeats, in clips per second.
        waited_pct: Share of its time that this process waited for a core while all models were timed, in percent; see
            `sightline.export.other_work`. None where the system does not tell.
    """

    median_ms: float
    iqr_ms: float
    clips_per_s: float
    batch: int
    clips_per_s_iqr: float = 0.0
    waited_pct: float | None = None


def measure_latency(
    backbone: Backbone,
    batch: int = 1,
    repeats: int = 20,
    warmup: int = 3,
    compiled: bool = False,
    reducer: Reducer | None = None,
) -> Latency:
    """Time the forward pass of one backbone, with a reducer if one is given; see `compare_latency`."""
    reducers = None if reducer is None else {"": reducer}
    return compare_latency({"": backbone}, batch, repeats, warmup, compiled, reducers)[""]


def compare_latency(
    backbones: Mapping[str, Backbone],
    batch: int = 1,
    repeats: int = 20,
    warmup: int = 3,
    compiled: bool = False,
    reducers: Mapping[str, Reducer] | None = None,
    clips: Tensor | None = None,
) -> dict[str, Latency]:
    """Time the forward pass of several backbones in turns.

    Args:
        backbones: The models by name, each on its device and in its precision; their training modes are restored.
        batch: Clips per forward pass.
        repeats: Timed passes of each model.
        warmup: Passes of each model before, which are not timed.
        compiled: Whether to time what torch.compile makes of the models; compiling is part of the warm-up.
        reducers: By name, for the models that run with fewer tokens.
        clips: What to run, uint8 (N, 3, T, H, W): its first ``batch`` clips, repeated where there are fewer; noise if
            not given. Of a reducer whose answer depends on what clips show, the time on noise means nothing.

    Raises:
        ValueError: If there is nothing to time, no warm-up to compile in, or a model is on a device other than cpu
            and cuda.
    """
    if compiled and warmup < 1:
        raise ValueError(f"The first pass compiles the model: expected warmup of at least 1, got {warmup}.")
    if batch < 1 or repeats < 1 or warmup < 0:
        raise ValueError(
            f"Expected batch and repeats of at least 1 and warmup of at least 0, got {batch}, {repeats} and {warmup}."
        )
    if not backbones:
        raise ValueError("Expected at least one backbone to time, got none.")
    names = list(backbones)
    shown = {name: _clips_for(backbone, batch, clips) for name, backbone in backbones.items()}
    run: dict[str, Callable[..., Tensor]] = dict(backbones)
    if compiled:
        run = {name: torch.compile(backbone, dynamic=False) for name, backbone in backbones.items()}
    run |= {name: partial(run[name], reducer=reducer) for name, reducer in (reducers or {}).items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    # Not inference_mode: what a backbone caches in there (its bias) could not be used outside.
    with torch.no_grad(), evaluating(backbones.values()):
        before = core_times()
        for turn in range(warmup + repeats):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                elapsed = _forward_ms(run[name], shown[name])
                if turn >= warmup:
                    times[name].append(elapsed)
        waited = waited_pct(before, core_times())
    return {name: _summary(times[name], batch, waited) for name in names}


def _summary(times_ms: list[float], batch: int, waited: float | None) -> Latency:
    low, median, high = np.quantile(times_ms, [0.25, 0.5, 0.75]).tolist()
    slowest, fastest = np.quantile(1000.0 * batch / np.asarray(times_ms), [0.25, 0.75]).tolist()
    return Latency(median, high - low, 1000.0 * batch / median, batch, fastest - slowest, waited)


def _clips_for(backbone: Backbone, batch: int, clips: Tensor | None) -> Tensor:
    if clips is None:
        return example_clips(backbone, batch)
    return clips[torch.arange(batch) % len(clips)].to(next(backbone.parameters()).device)


def example_clips(backbone: Backbone, batch: int) -> Tensor:
    """Return random uint8 clips (batch, 3, T, H, W) for a backbone, without touching the global generator."""
    device = next(backbone.parameters()).device
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"Latency can be measured on cpu and cuda, but the backbone is on {device}. Move it first.")
    spec = backbone.input_spec
    shape = (batch, 3, spec.frames, spec.height, spec.width)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)


def _forward_ms(run: Callable[..., Tensor], clips: Tensor) -> float:
    """Return the milliseconds of one forward pass, by CUDA events on a GPU."""
    if clips.device.type == "cpu":
        start = time.perf_counter()
        run(clips)
        return 1000.0 * (time.perf_counter() - start)
    with torch.cuda.device(clips.device):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        run(clips)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)


@contextmanager
def evaluating(roots: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, and every submodule back into its own mode afterwards."""
    roots = list(roots)
    modes = [(root, root.training, [(m, m.training) for m in root.modules()]) for root in roots]
    try:
        for root in roots:
            root.eval()
        yield
    finally:
        for root, training, parts in modes:
            root.train(training)  # lets modules drop what they cached for evaluation
            for module, mode in parts:
                module.training = mode
