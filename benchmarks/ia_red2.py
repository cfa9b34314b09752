"""IA-RED² against the controls, on the cabin: accuracy at equal shares of tokens, before and after tuning the blocks.

    python benchmarks/ia_red2.py --out runs/ia-red2 --backbone timesformer_joint_demo --seeds 0 1 2
    python benchmarks/ia_red2.py --out runs/ia-red2-vit --backbone vit_demo --seeds 0 1 2

Trains, for each seed, a model of all tokens (configs/demo.yaml, 30 epochs), its interpreters without and with sight of
motion (configs/ia_red2_demo.yaml), and from these the blocks for two epochs under each method's own dropping of half of
the tokens, with the same parts frozen. All are tested on the clips that no training has seen, those of validation among
them: best epochs are chosen by these, for every row alike. What is finished is not trained again. Tables:

- rows: top-1 of one crop of each clip (clip-1) and of the mean over its left, centre and right crops (video-1), by
  method, share and whether blocks were tuned; clips/s of the untuned (the paper's table 4). Of random dropping the mean
  over its draws counts, clip by clip. ``one map`` keeps the cells with the highest mean score, of every clip the same.
- cut: magnitude pruning of the blocks' linear layers, or whole layers removed by lowest r, with and without fewer
  tokens, nothing tuned (figure 5). Multiply-adds of weights that are zero count as saved, which no dense kernel does.
- sizes: other resolutions, at which interpreters alone were trained (table 3), with ``--sizes``.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.policies import CONTROLS, POLICIES, Clips, clips_of, model_in, right, train_all, train_size  # noqa: E402
from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline import library  # noqa: E402
from sightline.backbones import Backbone, Place, Reducer, TokenState, run_steps  # noqa: E402
from sightline.export.counting import count_cost, macs_by_clip  # noqa: E402
from sightline.export.latency import compare_latency  # noqa: E402
from sightline.report.figures.saving import save_figure  # noqa: E402
from sightline.report.figures.style import (  # noqa: E402
    BLUE,
    GREEN,
    INK,
    ORANGE,
    VERMILLION,
    finish_axes,
    new_figure,
    set_titles,
    styled,
)
from sightline.run.paths import RunFolder  # noqa: E402
from sightline.statistics.paired_change import paired_change  # noqa: E402
from sightline.tokens import IARED2, TokenReduction, trace  # noqa: E402
from sightline.tokens.equal_kept import at_kept  # noqa: E402
from sightline.tokens.share_reducer import ShareReducer  # noqa: E402

KEPT = (0.7, 0.5, 0.3)
UNTUNED = ("temporal_difference", "attention", "sta")
DRAWS = 5
CUT = (0.3, 0.5, 0.6, 0.7)
"""Shares of the weights of linear layers that are set to zero."""
LAYERS = (1, 2, 3)
CROPS = 3
TIMED = 16
"""Clips per batch when throughput is measured."""


@dataclass(frozen=True)
class OneMap(ShareReducer):
    """Keeps the same cells of every clip: those with the highest values of one map, (C,)."""

    values: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(1))

    def scores(self, place: Place, state: TokenState) -> Tensor:
        return self.values.expand(state.batch, -1)


def reducers_of(method: str, kept: float, backbone: Backbone, clips: Tensor) -> list[Reducer]:
    """Return a method at a share of the tokens, every draw of it."""
    draws = [{"seed": draw} for draw in range(DRAWS)] if method == "random" else [{}]
    asked = [TokenReduction.of(method.split()[0], options) for options in draws]
    return [at_kept(tokens, backbone, kept, clips[:1])[0].build() for tokens in asked]


def mean_map(backbone: Backbone, clips: Clips) -> Tensor:
    """Return the mean of the first interpreter's scores over clips, (C,)."""
    parts = [trace(backbone, some, IARED2(kept=1.0))[0].heat for some in clips.clips.split(60)]
    return torch.cat([part for part in parts if part is not None]).mean(dim=0)


def ways_of(runs: dict[str, RunFolder]) -> dict[tuple[str, float, bool], tuple[Backbone, list[Reducer]]]:
    """Return the model and the reducers of every method, share, and whether its blocks were tuned."""
    clips, models = clips_of(runs["base"], "test").clips, {name: model_in(run) for name, run in runs.items()}
    one_map = mean_map(models["ia_red2"], clips_of(runs["base"], "train"))
    ways: dict[tuple[str, float, bool], tuple[Backbone, list[Reducer]]] = {}
    for kept in KEPT:
        for method in ("random", *UNTUNED, *POLICIES):
            model = models[method if method in POLICIES else "base"]
            ways[method, kept, False] = model, reducers_of(method, kept, model, clips)
        ways["one map", kept, False] = models["base"], [OneMap(kept=kept, values=one_map)]
        for method in (*CONTROLS, *POLICIES):
            model = models[f"tuned {method}"]
            ways[method, kept, True] = model, reducers_of(method, kept, model, clips)
    return ways


def tested(runs: dict[str, RunFolder]) -> pd.DataFrame:
    """Test every method at every share, untuned and tuned: one row per clip."""
    base, ways = model_in(runs["base"]), ways_of(runs)
    found = []
    for crops in (1, CROPS):
        unseen = clips_of(runs["base"], "val", "test", crops=crops)
        results = {("all tokens", 1.0, False): right(base, unseen)}
        for way, (model, reducers) in ways.items():
            results[way] = torch.stack([right(model, unseen, reducer) for reducer in reducers]).mean(dim=0)
        found.append({way: values.tolist() for way, values in results.items()})
    clips = range(len(unseen.groups))
    return pd.concat(
        pd.DataFrame(
            {"method": way[0], "kept": way[1], "tuned": way[2], "clip": clips, "group": unseen.groups}
            | {"right": one, "right_in_3": found[1][way]}
        )
        for way, one in found[0].items()
    )


def speeds(runs: dict[str, RunFolder]) -> dict[tuple[str, float], float]:
    """Return clips/s of every untuned method and of all tokens, timed in turns."""
    ways = {way[:2]: found for way, found in ways_of(runs).items() if not way[2]}
    named = {f"{method} {kept}": (method, kept) for method, kept in ways}
    models = {"all tokens": model_in(runs["base"])} | {name: ways[way][0] for name, way in named.items()}
    reducers = {name: ways[way][1][0] for name, way in named.items()}
    clips = clips_of(runs["base"], "test").clips
    times = compare_latency(models, TIMED, reducers=reducers, clips=clips)
    return {named.get(name, ("all tokens", 1.0)): found.clips_per_s for name, found in times.items()}


def cut_weights(backbone: Backbone, share: float) -> Backbone:
    """Return a copy in which the smallest weights of every linear layer of the blocks are zero."""
    smaller = copy.deepcopy(backbone)
    for module in _linear(smaller):
        size = module.weight.abs()
        limit = size.flatten().kthvalue(max(round(share * size.numel()), 1)).values
        module.weight.data[size <= limit] = 0
    return smaller


@torch.no_grad()
def linear_macs(backbone: Backbone, clip: Tensor, reducer: Reducer | None) -> int:
    """Return the multiply-adds of the blocks' linear layers for one clip (1, 3, T, H, W): weights times tokens."""
    weights = {
        index: sum(module.weight.numel() for module in layer.modules() if isinstance(module, nn.Linear))
        for index, layer in backbone.layer_modules().items()
    }
    steps = run_steps(backbone, backbone.embed(clip, reducer), reducer=reducer)
    return sum(weights[step.index] * step.before.tokens.shape[1] for step in steps if step.kind == "mlp")


def _linear(backbone: Backbone) -> list[nn.Linear]:
    modules = [module for layer in backbone.layer_modules().values() for module in layer.modules()]
    return [module for module in modules if isinstance(module, nn.Linear)]


def cut_and_reduced(runs: dict[str, RunFolder]) -> list[dict[str, float]]:
    """Return accuracy and cost with weights cut or layers removed, tokens dropped, and both, without tuning."""
    unseen, train = clips_of(runs["base"], "val", "test"), clips_of(runs["base"], "train")
    policy, clip = model_in(runs["ia_red2"]), unseen.clips[:1]
    scores = library.score(policy, train.clips, train.labels, units="layers", batch=32)
    order = scores.groupby("layer")["r"].mean().sort_values(kind="stable").index.tolist()
    smaller = {(0.0, 0): policy}
    smaller |= {(share, 0): cut_weights(policy, share) for share in CUT}
    smaller |= {(0.0, k): policy.without(order[:k]) for k in LAYERS}
    full, rows = count_cost(policy).macs, []
    for (share, layers), backbone in smaller.items():
        for kept in (1.0, *KEPT):
            reducer = None if kept == 1 else reducers_of("ia_red2", kept, policy, unseen.clips)[0]
            macs = count_cost(backbone).macs if reducer is None else macs_by_clip(backbone, reducer, clip)[0]
            macs -= round(share * linear_macs(backbone, clip, reducer))
            top1 = 100 * float(right(backbone, unseen, reducer).mean())
            rows.append({"weights_cut": share, "layers": layers, "kept": kept, "macs_pct": 100 * macs / full})
            rows[-1] |= {"top1": top1}
    return rows


def by_share(runs: dict[str, RunFolder]) -> list[dict[str, Any]]:
    """Return top-1 of a base and of its policy at every share, with their resolution."""
    unseen, base, policy = clips_of(runs["base"], "val", "test"), model_in(runs["base"]), model_in(runs["ia_red2"])
    tokens = trace(policy, unseen.clips[:1], IARED2(kept=1.0))[0].cells.shape[1]
    about: dict[str, Any] = {"size": base.input_spec.height, "tokens": tokens}
    rows = [{**about, "kept": 1.0, "method": "all tokens", "top1": float(right(base, unseen).mean())}]
    for kept in KEPT:
        for method in ("ia_red2", "random"):
            reducers = reducers_of(method, kept, policy, unseen.clips)
            top1 = torch.stack([right(policy, unseen, reducer) for reducer in reducers]).mean()
            rows.append({**about, "kept": kept, "method": method, "top1": float(top1)})
    return [{**row, "top1": 100 * row["top1"]} for row in rows]


def summed_up(clips: pd.DataFrame, speed: dict[tuple[str, float], float]) -> pd.DataFrame:
    """Return accuracies over the clips of all seeds, with intervals, and differences to the controls, in points."""
    rows = []
    for way, own in clips.groupby(["method", "kept", "tuned"], sort=False):
        method, kept, tuned = cast("tuple[str, float, bool]", way)
        row: dict[str, Any] = {"method": method, "kept": kept, "tuned": tuned, "clips": len(own)}
        row |= _change("top1", own["right"], own["group"]) | {"video1": 100 * own["right_in_3"].mean()}
        row |= {"by_seed": " ".join(f"{100 * one:.1f}" for one in own.groupby("seed")["right"].mean())}
        row |= {"clips_per_s": None if tuned else speed[method, kept]}
        for control in (*CONTROLS, "ia_red2"):
            other = clips[(clips["method"] == control) & (clips["kept"] == kept) & (clips["tuned"] == tuned)]
            if len(other) == len(own) and method != control:
                row |= _change(f"vs_{control}", own["right"].to_numpy() - other["right"].to_numpy(), own["group"])
        rows.append(row)
    return pd.DataFrame(rows)


def _change(name: str, values: pd.Series, groups: pd.Series) -> dict[str, float]:
    found = paired_change(values, groups)
    return {name: 100 * found.change, f"{name}_low": 100 * found.low, f"{name}_high": 100 * found.high}


@styled()
def cut_figure(cut: pd.DataFrame) -> Figure:
    """Draw top-1 against multiply-adds of what is cut, alone and with half of the tokens (the paper's figure 5)."""
    figure = new_figure(6.0, 4.0)
    axes = figure.add_subplot()
    whole = (cut["weights_cut"] == 0) & (cut["layers"] == 0)
    curves = {
        "fewer tokens (IA-RED²)": (whole, BLUE, "o", "-"),
        "weights cut": ((cut["layers"] == 0) & (cut["kept"] == 1), VERMILLION, "s", "-"),
        "weights cut, half of the tokens": ((cut["layers"] == 0) & (cut["kept"] == 0.5), ORANGE, "s", "--"),
        "layers removed": ((cut["weights_cut"] == 0) & (cut["kept"] == 1), GREEN, "^", "-"),
        "layers removed, half of the tokens": ((cut["weights_cut"] == 0) & (cut["kept"] == 0.5), INK, "^", "--"),
    }
    for label, (rows, colour, marker, line) in curves.items():
        points = cut[rows].sort_values("macs_pct")
        axes.plot(points["macs_pct"], points["top1"], color=colour, marker=marker, linestyle=line, label=label)
    axes.set_xlabel("Multiply-adds (% of the whole model)")
    axes.set_ylabel("Top-1 accuracy (%)")
    finish_axes(axes)
    figure.legend(loc="outside lower center", ncols=2)
    note = "Nothing tuned. Weights that are zero count as saved, which dense kernels do not do."
    set_titles(axes, "Weights, layers and tokens, alone and together", [note])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="timesformer_joint_demo", help="a registered backbone of one stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", type=int, default=1, help="groups of layers, each with an interpreter")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="other resolutions to train at, in pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--figures", type=Path, help="folder of the figure ia_red2_cuts")
    add_results_option(parser)
    args = parser.parse_args()
    parts: list[pd.DataFrame] = []
    cuts: list[dict[str, float]] = []
    sizes: list[dict[str, Any]] = []
    speed: dict[tuple[str, float], float] = {}
    for seed in args.seeds:
        out = (args.out / f"seed{seed}").resolve()
        runs = train_all(args.backbone, seed, out, args.groups)
        parts.append(tested(runs).assign(seed=seed))
        speed = speed or speeds(runs)
        cuts += [{"seed": seed, **row} for row in cut_and_reduced(runs)]
        resolutions = [runs, *(train_size(args.backbone, seed, out, size) for size in args.sizes)]
        sizes += [row for found in resolutions if args.sizes for row in by_share(found)]
    rows = summed_up(pd.concat(parts, ignore_index=True), speed)
    cut = pd.DataFrame(cuts).groupby(["weights_cut", "layers", "kept"], as_index=False)[["macs_pct", "top1"]].mean()
    print(rows.to_string(index=False))
    print(cut.to_string(index=False))
    if args.results is not None:
        tables: dict[str, Any] = {"cut": cut}
        if sizes:
            by = ["size", "tokens", "method", "kept"]
            tables["sizes"] = pd.DataFrame(sizes).groupby(by, as_index=False, sort=False)["top1"].mean()
        write_result(args.results, rows, backbone=args.backbone, seeds=args.seeds, **tables)
    if args.figures is not None:
        save_figure(cut_figure(cut), args.figures, "ia_red2_cuts")


if __name__ == "__main__":
    main()
