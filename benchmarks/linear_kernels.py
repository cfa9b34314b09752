"""Compare linear layers by the kernel that was measured to be faster with PyTorch's own throughout.

    python benchmarks/linear_kernels.py --results docs/results/linear_kernels.json
    python benchmarks/linear_kernels.py --backbone mvit_v2_s --every 0     # the forward pass alone

Random weights, one clip of 16x224x224, float32, one thread, CPU time of the process. The two take turns within every
repeat, and the ratio of each turn is what counts: what else the machine does then strikes both. The forward pass is
timed for every backbone, and for the first one the ablation of all heads and layers, layer by layer: every n-th layer
from the last one back, and the first. Scores are compared unit by unit.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from ablation import by_layer, sampled_layers
from forward import CLASSES, FRAMES, REFERENCES, SIZE, randomise
from torch import Tensor

from benchmarks.result_files import add_results_option, write_result
from sightline.backbones import Backbone, build_backbone
from sightline.backbones.parts.linear import Linear, linear
from sightline.backbones.parts.linear_kernels import LinearKernels, current_kernels, using_kernels
from sightline.backbones.stored_kernels import machine
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.memory import StackSize
from sightline.relevance.scores import score

OWN = LinearKernels()
Result = TypeVar("Result")


def timed(kernels: LinearKernels, run: Callable[[], Result]) -> tuple[float, Result]:
    with using_kernels(kernels):
        start = time.process_time()
        found = run()
        return time.process_time() - start, found


def spread(ratios: list[float]) -> dict[str, float]:
    return {
        "times_faster": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def in_linear_layers(backbone: Backbone, clips: Tensor, kernels: LinearKernels) -> tuple[float, float]:
    """Return the seconds that a pass spends in modules of linear layers, and the operations per second there."""
    spent, operations, starts = 0.0, 0.0, {}

    def before(module, inputs) -> None:
        starts[module] = time.process_time()

    def after(module, inputs, out) -> None:
        nonlocal spent, operations
        spent += time.process_time() - starts[module]
        operations += 2 * inputs[0].numel() * module.out_features

    modules = [module for module in backbone.modules() if isinstance(module, Linear)]
    hooks = [m.register_forward_pre_hook(before) for m in modules] + [m.register_forward_hook(after) for m in modules]
    timed(kernels, lambda: backbone(clips))
    for hook in hooks:
        hook.remove()
    return spent, operations / spent


def forward_row(name: str, backbone: Backbone, clips: Tensor, chosen: LinearKernels, repeats: int) -> dict[str, object]:
    def run() -> Tensor:
        return backbone(clips)

    found, expected = timed(chosen, run)[1], timed(OWN, run)[1]
    times = [(timed(chosen, run)[0], timed(OWN, run)[0]) for _ in range(repeats)]
    layers = {way: in_linear_layers(backbone, clips, k) for way, k in (("chosen", chosen), ("pytorch", OWN))}
    return {
        "what": "forward",
        "backbone": name,
        "s": round(statistics.median(a for a, _ in times), 3),
        "s_pytorch": round(statistics.median(b for _, b in times), 3),
        **spread([b / a for a, b in times]),
        **{f"linear_layers_s_{way}": round(spent, 3) for way, (spent, _) in layers.items()},
        **{f"linear_layers_gflops_{way}": round(rate / 1e9) for way, (_, rate) in layers.items()},
        "largest_difference": float((found - expected).abs().max()),
        "largest_logit": round(float(expected.abs().max()), 3),
    }


def ablation_row(name: str, backbone: Backbone, clips: Tensor, chosen: LinearKernels, every: int) -> dict[str, object]:
    units, label = by_layer(backbone), torch.zeros(len(clips), dtype=torch.int64)
    sizes = {"chosen": StackSize(), "pytorch": StackSize()}
    base, totals, ratios, differences, floors = {}, {"chosen": 0.0, "pytorch": 0.0}, [], [], []
    count, layers = 0, sampled_layers(backbone, every)
    for index in layers:
        count += len(units[index])
        scores = {}
        for way, kernels in (("chosen", chosen), ("pytorch", OWN)):
            control = index == layers[0]
            run = partial(ablated_logits, backbone, clips, units[index], stack=sizes[way], control=control)
            base[way], logits = timed(kernels, run)
            totals[way] += base[way]
            scores[way] = score(logits.base, logits.units, label)
            if control:
                floors.append(float(score(logits.base, logits.control, label).r.max()))
        ratios.append(base["pytorch"] / base["chosen"])
        differences.append(
            max(
                float((getattr(scores["chosen"], s) - getattr(scores["pytorch"], s)).abs().max())
                for s in ("dprob", "jsd", "r")
            )
        )
        print(f"{name} layer {index}: {base}", file=sys.stderr, flush=True)
    return {
        "what": "ablation",
        "backbone": name,
        "layers": layers,
        "units": count,
        "s": round(totals["chosen"], 2),
        "s_pytorch": round(totals["pytorch"], 2),
        **spread(ratios),
        "times_faster_in_all": round(totals["pytorch"] / totals["chosen"], 3),
        "largest_difference_of_a_score": max(differences),
        "noise_floor": floors[0],
        "noise_floor_pytorch": floors[1],
    }


def layer_row(widths: tuple[int, int], rows: int, chosen: LinearKernels) -> dict[str, object]:
    """Compare the two on one layer's product."""
    x, layer = torch.randn(rows, widths[0]), Linear(*widths)
    times = []
    for _ in range(15):
        times.append([timed(k, lambda: linear(x, layer.weight, layer.bias))[0] for k in (chosen, OWN)])
    rate = 2 * rows * math.prod(widths) / 1e9
    a, b = (rate / min(column) for column in zip(*times, strict=True))
    return {
        "what": "layer",
        "in": widths[0],
        "out": widths[1],
        "rows": rows,
        "gflops": round(a),
        "gflops_pytorch": round(b),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", choices=list(REFERENCES), default=list(REFERENCES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--every", type=int, default=5, help="ablate every n-th layer of the first backbone; 0: none")
    add_results_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = current_kernels()
    rows = [
        layer_row(widths, count, chosen)
        for widths, count in (((96, 288), 25088), ((192, 768), 6272), ((384, 1536), 1568), ((768, 3072), 392))
    ]
    for place, name in enumerate(args.backbone):
        backbone = build_backbone(name, CLASSES, {"frames": FRAMES, "size": SIZE}).eval()
        randomise(backbone)
        clips = torch.rand(1, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        rows.append(forward_row(name, backbone, clips, chosen, args.repeats))
        print(json.dumps(rows[-1]), flush=True)
        if args.every and not place:
            rows.append(ablation_row(name, backbone, clips, chosen, args.every))
            print(json.dumps(rows[-1]), flush=True)
        if args.results is not None:
            found = {size: [measured.kernel, measured.times_faster] for size, measured in chosen.sizes.items()}
            write_result(args.results, rows, kernels=found, instructions=machine()["instructions"])


if __name__ == "__main__":
    main()
