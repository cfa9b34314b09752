"""The cost of a backbone side by side with that of what is left after layers are cut or tokens dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from sightline.backbones import Backbone, build_backbone
from sightline.export.counting import count_cost, percent_change
from sightline.export.latency import compare_latency
from sightline.export.peak_memory import peak_memory
from sightline.tokens import TokenReduction


@dataclass(frozen=True)
class CostedModel:
    """A backbone and the token reduction that it runs with.

    Attributes:
        backbone: The whole one, or what is left of it.
        tokens: The reduction; None where all tokens stay.
    """

    backbone: Backbone
    tokens: TokenReduction | None = None


@dataclass(frozen=True)
class Timing:
    """How models are timed; see `sightline.export.latency.compare_latency`.

    Attributes:
        batch: Clips per batch for clips per second and peak memory; latency is measured at 1.
        repeats: Timed passes of each model.
        warmup: Passes before.
        compiled: Whether to time what torch.compile makes of the models.
    """

    batch: int = 1
    repeats: int = 10
    warmup: int = 3
    compiled: bool = False


def build_models(
    name: str,
    num_classes: int,
    options: Mapping[str, Any],
    removed: Sequence[int] = (),
    tokens: TokenReduction | None = None,
) -> dict[str, CostedModel]:
    """Build the whole backbone, what is left of it without some layers, and that with fewer tokens.

    Args:
        name: A registered backbone.
        num_classes: Its number of classes.
        options: Its options.
        removed: Original indices of layers; where there are none, there is no such model.
        tokens: The reduction; where there is none, there is no such model.
    """
    full = build_backbone(name, num_classes, options)
    models = {"full": CostedModel(full)}
    if removed:
        layers = sorted(set(removed))
        models[f"without {' '.join(map(str, layers))}"] = CostedModel(full.without(layers))
    if tokens is not None:
        title, last = list(models.items())[-1]
        backbone = last.backbone
        if tokens.build().needs_interpreters:  # weights do not matter here
            backbone = build_backbone(name, num_classes, options, tuple(sorted(set(removed))), interpreters={})
        models[f"{title}, {tokens.label}"] = CostedModel(backbone, tokens)
    return models


def describe(model: CostedModel) -> dict[str, Any]:
    """Return the static part of a model's row."""
    if model.tokens is None:
        cost = count_cost(model.backbone)
        return {"params": cost.params, "macs": cost.macs}
    cost = count_cost(model.backbone, reducer=model.tokens.build())
    return {"params": cost.params, "macs": cost.macs, "tokens": model.tokens.label}


def time_models(
    models: Mapping[str, CostedModel], device: str, dtype: str, timing: Timing
) -> dict[str, dict[str, Any]]:
    """Return the measured part of each model's row, under the names of ``tables/pruning.csv``.

    Args:
        models: The models by name; they are moved to the device and changed to the data type.
        device: cpu or cuda.
        dtype: Name of a floating-point type of PyTorch's.
        timing: How to time.
    """
    place = checked_device(device)
    for model in models.values():
        model.backbone.to(place, getattr(torch, dtype))
    backbones = {name: model.backbone for name, model in models.items()}
    reducers = {name: model.tokens.build() for name, model in models.items() if model.tokens is not None}
    # Memory first: it is that of the eager pass, and compiling leaves things behind.
    memory = {name: peak_memory(model, timing.batch, reducers.get(name)) for name, model in backbones.items()}
    how = (timing.repeats, timing.warmup, timing.compiled, reducers)
    single = compare_latency(backbones, 1, *how)
    many = single if timing.batch == 1 else compare_latency(backbones, timing.batch, *how)
    return {
        name: {
            "latency_ms_b1": single[name].median_ms,
            "latency_iqr_ms_b1": single[name].iqr_ms,
            "clips_per_s": many[name].clips_per_s,
            "peak_memory_bytes": memory[name],
            "batch": timing.batch,
        }
        for name in models
    }


def checked_device(name: str) -> torch.device:
    """Return the device of that name, or raise ValueError where it cannot be measured on."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be cpu or cuda, got {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices.")
    return device


def add_changes(rows: dict[str, dict[str, Any]]) -> None:
    """Add to every row by how many percent its values differ from the first row's."""
    full = dict(next(iter(rows.values())))
    for row in rows.values():
        for key in ("params", "macs", "latency_ms_b1", "clips_per_s", "peak_memory_bytes"):
            if key in row:
                row[f"{key}_change_pct"] = percent_change(row[key], full[key])


def as_table(rows: dict[str, dict[str, Any]], title: str) -> Table:
    """Draw the rows, each value with its change in percent."""
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    first = next(iter(rows.values()))
    # Of one unit for the column, so that its rows compare at a glance; a small model would be 0.05 G.
    macs = ("G", 1e9, 2) if first["macs"] >= 1e9 else ("M", 1e6, 2)
    columns = {"params": ("params\n(M)", 1e6, 3), "macs": (f"multiply-\nadds ({macs[0]})", *macs[1:])}
    if "batch" in first:
        columns["latency_ms_b1"] = ("ms (IQR),\nbatch 1", 1, 1)
        columns["clips_per_s"] = (f"clips/s,\nbatch {first['batch']}", 1, 2)
        columns["peak_memory_bytes"] = (f"MiB,\nbatch {first['batch']}", 2**20, 1)
    for heading, _, _ in columns.values():
        table.add_column(heading, justify="right")
    for number, (name, row) in enumerate(rows.items()):
        cells = [f"{row[key] / unit:.{digits}f}" for key, (_, unit, digits) in columns.items()]
        if "batch" in row:
            cells[2] += f" ({row['latency_iqr_ms_b1']:.1f})"
        if number:
            # On a line of its own, so that all columns fit into 80 characters.
            cells = [f"{c}\n{row[f'{key}_change_pct']:+.1f} %" for c, key in zip(cells, columns, strict=True)]
        table.add_row(name, *cells)
    return table
