"""The cost of a backbone and of what is left after layers are cut: a command, and the names behind it.

python -m sightline.export.cost --backbone video_swin_s --num_classes 20 --remove 7 9 15
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Table

from sightline.backbones import Backbone, build_backbone
from sightline.export.counting import Cost, count_cost, percent_change
from sightline.export.latency import Latency, compare_latency, measure_latency
from sightline.export.peak_memory import peak_memory

__all__ = ["Cost", "Latency", "compare_latency", "count_cost", "main", "measure_latency", "percent_change"]

Models = dict[str, Backbone]
PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        prog="python -m sightline.export.cost",
        description="Count parameters and multiply-adds of a backbone, whole and with layers removed.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--backbone", type=str, required=True, help="a registered backbone, e.g. video_swin_s")
    add("--num_classes", type=PositiveInt, default=400, help="number of classes")
    add("--remove", type=int, nargs="*", default=[], metavar="LAYER", help="original indices of layers to remove")
    add("--frames", type=PositiveInt | None, default=None, help="frames per clip; the backbone's own if not given")
    add("--size", type=PositiveInt | None, default=None, help="height and width in pixels; likewise")
    add("--options", type=dict[str, Any], default={}, help="more options of the backbone, as JSON")
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--latency", action="store_true", help="also measure latency at batch 1, clips/s and peak memory at --batch")
    add("--batch", type=PositiveInt, default=1, help="clips per batch for clips per second and peak memory")
    add("--repeats", type=PositiveInt, default=10, help="timed passes of each model")
    add("--warmup", type=NonNegativeInt, default=3, help="passes of each model before")
    add("--device", type=str, default="cpu", help="where to measure latency, e.g. cpu or cuda")
    add("--precision", type=str, choices=list(PRECISIONS), default="32", help="precision to measure latency in")
    add("--compiled", action="store_true", help="measure latency of what torch.compile makes of the models")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 2 with one line on stderr where it was asked for the impossible."""
    try:
        args = build_parser().parse_args(arguments)
        models = build_models(args)
        rows = {name: describe(model) for name, model in models.items()}
        if args.latency:
            for name, timing in time_models(models, args).items():
                rows[name].update(timing)
    except (ValueError, ArgumentError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    add_changes(rows)
    if args.json:
        print(json.dumps(rows[list(rows)[-1]]))
    else:
        Console().print(as_table(rows, f"{args.backbone}, {models['full'].input_spec}, {args.num_classes} classes"))
    return 0


def build_models(args: Namespace) -> Models:
    """Build the whole backbone and, where layers are to be removed, what is left of it."""
    options = dict(args.options)
    options.update({key: int(args[key]) for key in ("frames", "size") if args[key] is not None})
    full = build_backbone(args.backbone, int(args.num_classes), options)
    models = {"full": full}
    if args.remove:
        layers = sorted(set(args.remove))
        models[f"without {' '.join(map(str, layers))}"] = full.without(layers)
    return models


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return the static part of a model's row."""
    cost = count_cost(backbone)
    return {"params": cost.params, "macs": cost.macs}


def time_models(models: Models, args: Namespace) -> dict[str, dict[str, Any]]:
    """Return the measured part of each model's row, under the names of ``tables/pruning.csv``."""
    device = checked_device(args.device)
    for model in models.values():
        model.to(device, PRECISIONS[args.precision])
    # Memory first: it is that of the eager pass, and compiling leaves things behind.
    memory = {name: peak_memory(model, args.batch) for name, model in models.items()}
    how = (args.repeats, args.warmup, args.compiled)
    single = compare_latency(models, 1, *how)
    many = single if args.batch == 1 else compare_latency(models, args.batch, *how)
    return {
        name: {
            "latency_ms_b1": single[name].median_ms,
            "latency_iqr_ms_b1": single[name].iqr_ms,
            "clips_per_s": many[name].clips_per_s,
            "peak_memory_bytes": memory[name],
            "batch": args.batch,
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
    columns = {"params": ("params\n(M)", 1e6, 3), "macs": ("multiply-\nadds (G)", 1e9, 2)}
    first = next(iter(rows.values()))
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


if __name__ == "__main__":
    sys.exit(main())
