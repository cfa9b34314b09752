"""Time models that run with fewer tokens against the same models with all of them.

    python benchmarks/tokens.py --results docs/results/tokens_speed.json      # full-size models, one CPU thread
    python benchmarks/tokens.py --cases vit_base_videomae --clips noise --repeats 3
    python benchmarks/tokens.py --batch 32 --device cuda --precision bf16
    python benchmarks/tokens.py --ablations --run runs/x      # no times: see benchmarks/token_ablations.py

Random weights. Dense model and reductions take turns within every repeat, and the ratio of each turn is what counts:
what else the machine does then strikes all of them. On the CPU the process' own time is taken, on one thread; on a GPU,
CUDA events around each pass. Scoring the tokens is part of the pass. Clips are noise, and one bright square that moves
over a still background, which puts the tokens that stay into one place of each frame.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.forward import CLASSES, SIZE, randomise, seconds  # noqa: E402
from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from benchmarks.token_ablations import ablate  # noqa: E402
from sightline.backbones import Backbone, build_backbone  # noqa: E402
from sightline.export.counting import count_cost, macs_by_clip  # noqa: E402
from sightline.tokens import TokenReduction, kept_share  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A backbone and how many tokens go.

    Attributes:
        frames: Frames of a clip.
        amounts: STA's ``r``.
        limits: Largest share of the dense model's CPU time that is asked of each, on one thread; else, of a ViT, the
            share of multiply-adds and `ABOVE_MACS`.
        kept: Shares that IA-RED² keeps, by interpreters of random weights.
    """

    frames: int
    amounts: tuple[int, ...]
    limits: tuple[float, ...] = ()
    kept: tuple[float, ...] = ()


CASES = {
    "vit_base_videomae": Case(16, (32, 48, 64), kept=(0.7, 0.5, 0.3)),
    "video_swin_s": Case(32, (192, 256, 320), (0.76, 0.67, 0.58)),
    "timesformer_base": Case(8, (32, 48, 64), (0.83, 0.73, 0.63)),
    "mvit_v2_s": Case(16, (192, 256)),
}
ABOVE_MACS = {"sta": 0.03, "ia_red2": 0.05}
"""What a ViT's share of the CPU time may be above that of the multiply-adds, by method."""


def noise(backbone: Backbone, batch: int) -> Tensor:
    """Clips (batch, 3, T, H, W) of noise, uint8."""
    spec = backbone.input_spec
    shape = (batch, 3, spec.frames, spec.height, spec.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def moving(backbone: Backbone, batch: int) -> Tensor:
    """Clips of a square that moves over a still background, uint8."""
    clips = noise(backbone, batch)[:, :, :1].expand(-1, -1, backbone.input_spec.frames, -1, -1).clone() // 4
    side, frames = backbone.input_spec.height // 4, backbone.input_spec.frames
    for t in range(frames):
        x = t * (backbone.input_spec.width - side) // max(frames - 1, 1)
        clips[:, :, t, side : 2 * side, x : x + side] = 255 - clips[:, :, t, side : 2 * side, x : x + side]
    return clips


CLIPS = {"noise": noise, "one moving object": moving}


@torch.no_grad()
def rows_of(name: str, kind: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each amount: shares of multiply-adds and of time, and the largest that is asked for."""
    case, device = CASES[name], torch.device(args.device)
    options = {"frames": case.frames, "size": SIZE}
    backbone = build_backbone(name, CLASSES, options, interpreters={} if case.kept else None).eval()
    randomise(backbone)
    backbone.to(device)
    clips = CLIPS[kind](backbone, args.batch).to(device)
    specs = [TokenReduction.of("sta", {"r": r, "attention": args.attention}) for r in case.amounts]
    specs += [TokenReduction.of("ia_red2", {"kept": kept}) for kept in case.kept]
    runs = {spec: partial(backbone, clips, reducer=spec.build()) for spec in specs}
    precision = torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()
    times: dict[TokenReduction, list[tuple[float, float]]] = {spec: [] for spec in specs}
    dense = partial(backbone, clips)
    with precision:
        for run in (dense, *runs.values()):
            run()
        for _ in range(args.repeats):
            whole = seconds(dense, device)
            for spec, run in runs.items():
                times[spec].append((whole, seconds(run, device)))
    macs = count_cost(backbone).macs
    rows = []
    for place, spec in enumerate(specs):
        ratios = [reduced / whole for whole, reduced in times[spec]]
        share = macs_by_clip(backbone, spec.build(), clips[:1])[0] / macs
        above = share + ABOVE_MACS[spec.name] if name.startswith("vit") else 1.0
        limit = case.limits[place] if case.limits else above
        rows.append(
            {
                "backbone": name,
                "frames": case.frames,
                "clips": kind,
                "batch": args.batch,
                "tokens": spec.label,
                "kept": round(float(kept_share(backbone, clips[:1], spec.build()).mean()), 4),
                "dense_s": round(statistics.median(whole for whole, _ in times[spec]), 3),
                "s": round(statistics.median(reduced for _, reduced in times[spec]), 3),
                "clips_per_s": round(args.batch / statistics.median(reduced for _, reduced in times[spec]), 3),
                "share_of_time": round(statistics.median(ratios), 3),
                "lowest": round(min(ratios), 3),
                "highest": round(max(ratios), 3),
                "share_of_macs": round(share, 3),
                "limit": round(limit, 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--clips", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--attention", choices=["sparse", "filled"], default="sparse")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ablations", action="store_true", help="the ablations of STA's paper on a trained model")
    parser.add_argument("--run", type=Path, help="folder of the run whose model --ablations tests")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="where --ablations draws its figure")
    add_results_option(parser)
    args = parser.parse_args()
    if args.ablations != (args.run is not None):
        parser.error("--ablations and --run RUN go together: the ablations test the model of a finished run.")
    if args.device == "cpu":
        torch.set_num_threads(1)
    if args.ablations:
        ablate(args.run, args.device, args.results, args.figures)
        return
    rows: list[dict[str, Any]] = []
    for name in args.cases:
        for kind in args.clips:
            rows += rows_of(name, kind, args)
            if args.results is not None:
                write_result(args.results, rows)


if __name__ == "__main__":
    main()
