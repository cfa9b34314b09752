"""Compare Sightline's ablation of all heads and layers with evaluating the model once per unit.

    python benchmarks/ablation.py                                   # all families, 16x224x224, one clip, one CPU thread
    python benchmarks/ablation.py --every 4 --results a.json    # every fourth layer is timed, the others by count
    python benchmarks/ablation.py --device cuda --batch 8

Four ways to the same scores:
- ours: the ablation engine.
- naive, reference: one forward pass of the reference library's model per unit (its plain forward pass, which masking a
  head could only make slower).
- naive, own kernels: one forward pass of our own model per unit, with the head gated or the layer skipped.
- Captum's LayerFeatureAblation on the input of the output projection, for the heads of one layer.

Layers are taken one by one. Beside the engine's pass for the units of a layer stand forward passes of both models, and
the layer's own time is the engine's less that of the base pass. A naive way takes one pass per unit. So what else the
machine does strikes all sides. On the CPU the process' own time is taken, on one thread; on a GPU, CUDA events.
Multiply-adds are counted without a clock, on PyTorch's meta device, with attention as plain products on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
from forward import FRAMES, REFERENCES, SIZE, as_reference_takes_it, pair, seconds
from torch import Tensor

from benchmarks.result_files import add_results_option, write_result
from sightline.backbones import Backbone
from sightline.backbones.parts.merged_linear import MergedLinear
from sightline.export.counting import count_macs
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import PeakMemory, StackSize
from sightline.types import Unit

FAMILIES = [name for name in REFERENCES if name != "vit_base_videomae"]


def by_layer(backbone: Backbone) -> dict[int, list[Unit]]:
    units = backbone.units("heads") + backbone.units("layers")
    return {info.index: [unit for unit in units if unit.layer == info.index] for info in backbone.layers}


def counted(backbone: Backbone) -> tuple[int, dict[int, int]]:
    """Count the multiply-adds of one forward pass, and of what each layer's units take on top of the base pass."""
    full = count_macs(backbone, lambda twin, clips: twin(clips))

    # Published counts take TimeSformer's two projections apart, so meta tensors are not merged; the engine runs merged.
    def merged(self: MergedLinear, first: torch.nn.Linear, second: torch.nn.Linear) -> tuple[Tensor, Tensor]:
        return first.weight.new_empty(second.out_features, first.in_features), second.bias

    with mock.patch.object(MergedLinear, "of", merged):
        base = count_macs(backbone, lambda twin, clips: ablated_logits(twin, clips, []))
        layers = {
            index: count_macs(backbone, partial(ablated_logits, units=units)) - base
            for index, units in by_layer(backbone).items()
        }
    return full, {-1: base, **layers}


def sampled_layers(backbone: Backbone, every: int) -> list[int]:
    indices = [info.index for info in backbone.layers]
    return sorted({*indices[::-every][::-1], indices[0]} if every > 1 else indices)


def rate_near(layer: int, timed: dict[int, float], macs: dict[int, int]) -> float:
    """Return the seconds per multiply-add of the two nearest layers that were timed, taken together.

    Together, because the last layer alone takes next to nothing on top of the base pass: its rate would be noise.
    """
    near = sorted(timed, key=lambda other: abs(layer - other))[:2]
    return sum(timed[i] for i in near) / sum(macs[i] for i in near)


def captum_seconds(backbone: Backbone, clips: Tensor, layer: int, device: torch.device) -> float:
    """Time Captum's ablation of the heads of a layer's last site, through the input of its output projection."""
    from captum.attr import LayerFeatureAblation

    module: Any = backbone.layer_modules()[layer]
    projection = module.block.attn.project if backbone.family == "mvit" else module.attn.proj
    heads = len(module.sites[-1].heads)
    width = next(projection.parameters()).shape[1]
    mask = torch.arange(heads, device=device).repeat_interleave(width // heads).view(1, 1, -1)
    ablation = LayerFeatureAblation(lambda x: backbone(x).softmax(-1), projection)

    def run() -> object:
        return ablation.attribute(clips, layer_baselines=0, target=0, layer_mask=mask, attribute_to_layer_input=True)

    return seconds(run, device)


def peak_bytes(run: Callable[[], object]) -> int:
    with PeakMemory() as memory:
        run()
    return memory.peak


@torch.no_grad()
def compare(name: str, args: argparse.Namespace) -> dict[str, object]:
    device = torch.device(args.device)
    ours, reference, library = pair(name)
    full, macs = counted(ours)
    ours, reference = ours.to(device), reference.to(device)
    generator = torch.Generator().manual_seed(1)
    clips = torch.rand(args.batch, 3, FRAMES, SIZE, SIZE, generator=generator).to(device)
    theirs = as_reference_takes_it(library, clips, ours)
    units, stack = by_layer(ours), StackSize(args.largest_stack)
    layers = sampled_layers(ours, args.every)
    ablated_logits(ours, clips, units[layers[-1]], stack=stack)  # warm up
    reference(theirs)
    rows: list[tuple[int, float, float, float]] = []
    for index in layers:
        # The unit that the naive way with our own kernels is timed with: a head of the layer.
        unit = units[index][0]
        gate = torch.ones(len(next(s.heads for s in ours.layer_modules()[index].sites if s.name == unit.site)))
        gate[0] = 0
        gates = {(index, unit.site): gate.to(device)}
        own_before = seconds(partial(ours, clips, gates=gates), device)
        ref_before = seconds(lambda: reference(theirs), device)
        engine = seconds(partial(ablated_logits, ours, clips, units[index], stack=stack), device)
        own = (own_before + seconds(partial(ours, clips, gates=gates), device)) / 2
        ref = (ref_before + seconds(lambda: reference(theirs), device)) / 2
        rows.append((index, engine - own, own, ref))
        progress(f"{name} layer {index}: {engine:.1f} s for {len(units[index])} units; a pass {own:.2f} s, {ref:.2f} s")
    own, ref = (statistics.median(row[column] for row in rows) for column in (2, 3))
    timed = {index: extra for index, extra, _, _ in rows}
    spent = own + sum(timed[i] if i in timed else macs[i] * rate_near(i, timed, macs) for i in units)
    count = sum(map(len, units.values()))
    middle = layers[len(layers) // 2]
    engine_heads = [unit for unit in units[middle] if unit.site == ours.layer_modules()[middle].sites[-1].name]
    alone = seconds(lambda: ablated_logits(ours, clips, engine_heads, stack=stack), device)
    captum = captum_seconds(ours, clips, middle, device)
    row: dict[str, object] = {
        "backbone": name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, 1 thread",
        "batch": args.batch,
        "units": count,
        "layers_timed": len(rows),
        "macs_naive": full * count,
        "macs_ours": sum(macs.values()),
        "macs_ratio": round(sum(macs.values()) / (full * count), 4),
        "s_ours": round(spent, 2),
        "s_naive_reference": round(ref * count, 2),
        "s_naive_own_kernels": round(own * count, 2),
        "time_ratio_reference": round(spent / (ref * count), 3),
        "time_ratio_own_kernels": round(spent / (own * count), 3),
        "reference": library,
        "captum_layer": middle,
        "captum_ratio": round(alone / captum, 3),
        "clips_per_s": round(args.batch / spent, 4),
        "peak_mb_forward": round(peak_bytes(lambda: ours(clips)) / 2**20),
        "peak_mb_ours": round(peak_bytes(lambda: ablated_logits(ours, clips, units[layers[0]], stack=stack)) / 2**20),
    }
    if device.type == "cuda":
        row["share_of_product_ceiling"] = round(2 * sum(macs.values()) * args.batch / spent / ceiling(device), 3)
    return row


def ceiling(device: torch.device, size: int = 8192) -> float:
    """Measure the operations per second of one large matrix product."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    times = [seconds(lambda: a @ b, device) for _ in range(5)]
    return 2 * size**3 / statistics.median(times)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", choices=list(REFERENCES), default=FAMILIES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="time every n-th layer, from the last one back")
    parser.add_argument("--largest_stack", type=int, default=None)
    add_results_option(parser)
    args = parser.parse_args(arguments)
    if args.device == "cpu":
        torch.set_num_threads(1)
    rows = []
    for name in args.backbone:
        rows.append(compare(name, args))
        print(json.dumps(rows[-1]), flush=True)
        if args.results is not None:
            write_result(args.results, rows, arguments)


if __name__ == "__main__":
    main()
