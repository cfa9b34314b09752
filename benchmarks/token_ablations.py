"""The ablations of STA's paper on a trained model, and STA against random dropping at several amounts.

    python benchmarks/tokens.py --ablations --run runs/demo-vit_demo --results docs/results/token_ablations.json

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", ICCV 2023: tables 1 and
6a-e and figure 5. What is printed there (ViT-L, Kinetics-400) stands beside. Every row runs on the run's test clips,
without training; what is left to chance is drawn five times and averaged. Differences are paired clip by clip.

- A frame has 196 tokens there; other numbers are scaled by the tokens of a frame here and rounded.
- The trajectory sum is at most the number of earlier frames, 7 there. It falls with the number of tokens: compare rows
  that leave equally many.
- Where a grid has four frames, all of them are read as one at the third place, and only the rule for the first frame
  decides there. So the order of directions is also tested frame by frame.
- At the first place a frame of the grid chooses by itself; the schedules' numbers are per frame of the grid.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from benchmarks.all_sets import data_of
from benchmarks.result_files import Records, write_result
from callbacks.analysis import check_split
from sightline.backbones import Backbone
from sightline.checkpoints.trained import load_trained, trained_checkpoint
from sightline.report.figures.saving import save_figure
from sightline.report.figures.style import BLUE, INK, MUTED, finish_axes, new_figure, set_titles, styled
from sightline.report.verdict.pairs import compared, top1
from sightline.run.paths import RunFolder
from sightline.tokens import TokenReduction, kept_share
from sightline.tokens.sta.schedule import place_plans
from sightline.tokens.trajectory import trajectory_sum
from sightline.types import ClipBatch

PAPERS_FRAME = 196
DEFAULT_R = 64
DRAWS = 5
# Table -> an option of STA, and its values with the top-1 that is printed for them.
CHOICES = {
    "6a": ("first", {"random": 84.78, "grid": 84.85, "tome": 84.96}),
    "6b": ("order", {"fbf": 84.96, "bfb": 84.97, "fff": 84.26, "bbb": 84.35}),
    "6c": ("similarity", {"keys": 84.96, "queries": 84.83, "values": 84.84, "mlp": 84.94}),
    "6d": ("schedule", {"48,48,48": 84.68, "64,32,16": 84.96, "27,54,108": 77.68}),
    "6e": ("score", {"semantics": 84.87, "accumulation": 84.69, "both": 84.96}),
}
DECREASING = "64,32,16"  # what the default schedule comes to
READINGS = {"authors' code": {}, "as printed": {"frames": "single", "previous": "kept"}}
# r of figure 5 -> top-1 printed for STA, in the paper's main table.
AMOUNTS = {16: None, 32: 85.2, 48: 85.1, 64: 85.0, 80: None, 96: None}

Tokens = TokenReduction | None  # None: all tokens


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        table: Of which table of the paper.
        name: What differs from the other rows.
        draws: What is tested and averaged; several where chance decides.
        printed: Top-1 in the paper, percent.
        printed_trajectory: Trajectory sum in the paper.
    """

    table: str
    name: str
    draws: tuple[Tokens, ...]
    printed: float | None = None
    printed_trajectory: float | None = None


def scaled(number: int, backbone: Backbone) -> int:
    """Return so many of the paper's 196 tokens as tokens of a frame of this backbone."""
    _, height, width = backbone.reduction_grids[0]
    return round(number * height * width / PAPERS_FRAME)


def sta(backbone: Backbone, options: Mapping[str, Any] | None = None, r: int = DEFAULT_R) -> TokenReduction:
    """Return STA with options, and the paper's r scaled."""
    return TokenReduction.of("sta", {"r": scaled(r, backbone), **(options or {})})


def random_as_sta(backbone: Backbone, r: int = DEFAULT_R) -> tuple[TokenReduction, ...]:
    """Return draws that drop as many tokens as STA at the same places."""
    plans = place_plans(backbone, scaled(r, backbone))
    left = sum(list(plans.values())[-1].kept)
    frames, height, width = backbone.reduction_grids[0]
    kept = left / (frames * height * width)
    return tuple(TokenReduction.of("random", {"kept": kept, "at": "places", "seed": seed}) for seed in range(DRAWS))


def check_backbone(backbone: Backbone) -> None:
    """Raise ValueError where the paper's ablations of a ViT say nothing about a backbone."""
    grids = backbone.reduction_grids
    if backbone.refilled or len(grids) != 3 or grids[0][0] % 4:
        raise ValueError(
            "The ablations are of a ViT that drops tokens at three places for good, with a multiple of 4 frames in its "
            f"grid; this {backbone.family} has grids {', '.join('x'.join(map(str, grid)) for grid in grids)}. Pass a "
            "run of vit_demo."
        )


def way(backbone: Backbone, option: str, value: str) -> tuple[str, tuple[Tokens, ...]]:
    """Return what a value of an option is called here, and what runs with it."""
    if option == "schedule":
        if value == DECREASING:
            return f"decreasing from {scaled(DEFAULT_R, backbone)}", (sta(backbone),)
        numbers = ",".join(str(scaled(int(number), backbone)) for number in value.split(","))
        return numbers, (TokenReduction.of("sta", {"schedule": numbers}),)
    if (option, value) == ("first", "random"):
        return value, tuple(sta(backbone, {option: value, "seed": seed}) for seed in range(DRAWS))
    return value, (sta(backbone, {option: value}),)


def rows_of(backbone: Backbone) -> list[Row]:
    """Return the rows of tables 1 and 6a-e, and those that tell the readings of the method apart."""
    found = [
        Row("1", "all tokens", (None,), 85.1, 5.07),
        Row("1", "random", random_as_sta(backbone), None, 4.95),
        Row("1", "STA", (sta(backbone),), 84.96, 4.28),
    ]
    for table, (option, values) in CHOICES.items():
        for value, printed in values.items():
            name, draws = way(backbone, option, value)
            found.append(Row(table, f"{option} {name}", draws, printed))
    for order in CHOICES["6b"][1]:
        single = sta(backbone, {"order": order, "frames": "single"})
        found.append(Row("6b, frame by frame", f"order {order}", (single,)))
    for name, options in READINGS.items():
        found.append(Row("readings", name, (sta(backbone, options),)))
    return found


@torch.no_grad()
def results_of(
    backbone: Backbone, batches: Iterable[ClipBatch], reductions: Iterable[Tokens]
) -> dict[Tokens, pd.DataFrame]:
    """Test a model with every reduction.

    Returns:
        By reduction a row per clip: sample_id, label, predicted, group, whether the class is among the five most
        probable ones (top5), and the trajectory sum of the tokens that leave the last layer.
    """
    device = next(backbone.parameters()).device
    reducers = {tokens: None if tokens is None else tokens.build() for tokens in reductions}
    found: dict[Tokens, list[pd.DataFrame]] = {tokens: [] for tokens in reducers}
    for batch in batches:
        if not batch["sample_id"]:
            continue  # none of its clips could be read
        clips, label = batch["clip"].to(device), batch["label"]
        for tokens, reducer in reducers.items():
            state = backbone.run(backbone.embed(clips, reducer), reducer=reducer)
            logits = backbone.classify(state).cpu()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            sums = trajectory_sum(state.tokens[:, state.class_tokens :], state.cell_numbers(), state.grid)
            columns = {
                "sample_id": batch["sample_id"], "label": label, "predicted": best[:, 0], "group": batch["group"],
                "top5": (best == label[:, None]).any(dim=1), "trajectory": sums.cpu(),
            }  # fmt: skip
            found[tokens].append(pd.DataFrame(columns))
    return {tokens: pd.concat(parts, ignore_index=True) for tokens, parts in found.items()}


def shares_of(backbone: Backbone, reductions: Iterable[Tokens]) -> dict[Tokens, float]:
    """Return which share of the tokens every reduction keeps, mean over layers; it is the same in all clips."""
    spec, device = backbone.input_spec, next(backbone.parameters()).device
    clip = torch.zeros(1, 3, spec.frames, spec.height, spec.width, dtype=torch.uint8, device=device)
    return {
        tokens: 1.0 if tokens is None else float(kept_share(backbone, clip, tokens.build()))
        for tokens in dict.fromkeys(reductions)
    }


def measures(draws: Sequence[pd.DataFrame]) -> dict[str, float | None]:
    """Return the means over draws, and their standard deviations where there are several."""
    each = {
        "top1": [top1(draw) for draw in draws],
        "top5": [100 * draw["top5"].mean() for draw in draws],
        "trajectory": [draw["trajectory"].mean() for draw in draws],
    }
    found: dict[str, float | None] = {}
    for name, values in each.items():
        found[name] = statistics.fmean(values)
        found[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return found


def change(after: list[pd.DataFrame], before: list[pd.DataFrame]) -> dict[str, Any]:
    """Return the difference of top-1 in points, with its paired 95 % interval."""
    found = compared(after, before)
    assert found is not None  # all were tested on the same clips
    return {"change": 100 * found.change, "change_low": 100 * found.low, "change_high": 100 * found.high}


def table_rows(rows: Sequence[Row], results: dict[Tokens, pd.DataFrame], shares: dict[Tokens, float]) -> Records:
    """Return the rows with what was found; differences are against STA with its defaults, the row ``STA``."""
    (default,) = next(row.draws for row in rows if row.name == "STA")
    found = []
    for row in rows:
        draws = [results[tokens] for tokens in row.draws]
        none = dict.fromkeys(("change", "change_low", "change_high"))  # of the defaults from themselves
        found.append(
            {
                "table": row.table,
                "row": row.name,
                "tokens": [tokens and tokens.label for tokens in row.draws],
                "kept_pct": 100 * shares[row.draws[0]],
                **measures(draws),
                **(none if row.draws == (default,) else change(draws, [results[default]])),
                "printed": row.printed,
                "printed_trajectory": row.printed_trajectory,
            }
        )
    return found


def amount_rows(backbone: Backbone, results: dict[Tokens, pd.DataFrame], shares: dict[Tokens, float]) -> Records:
    """Return a row for each r of figure 5: STA, random dropping of as many, and the difference."""
    found = []
    for r, printed in AMOUNTS.items():
        tokens, control = sta(backbone, r=r), random_as_sta(backbone, r=r)
        own, others = results[tokens], [results[draw] for draw in control]
        accuracies = [top1(draw) for draw in others]
        found.append(
            {
                "papers_r": r,
                "r": scaled(r, backbone),
                "kept_pct": 100 * shares[tokens],
                "top1": top1(own),
                **{f"random_{name}": value for name, value in measures(others).items()},
                "random_lowest": min(accuracies),
                "random_highest": max(accuracies),
                **change([own], others),
                "printed": printed,
            }
        )
    return found


@styled()
def amounts_figure(amounts: Records, dense: float, frame: int) -> Figure:
    """Draw top-1 over how many tokens of a frame are dropped (figure 5).

    Args:
        amounts: From `amount_rows`.
        dense: Top-1 with all tokens, percent.
        frame: Tokens of a frame.
    """
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot()
    rows = pd.DataFrame(amounts)
    axes.axhline(dense, color=INK, linewidth=0.8, linestyle=(0, (5, 3)), label="all tokens")
    axes.plot(rows["r"], rows["top1"], color=BLUE, marker="o", markersize=5, linewidth=1.6, label="STA")
    axes.plot(
        rows["r"], rows["random_top1"], color=MUTED, marker="s", markersize=5, linewidth=1.6, linestyle="--",
        label=f"random ({DRAWS} draws)",
    )  # fmt: skip
    axes.fill_between(rows["r"], rows["random_lowest"], rows["random_highest"], color=MUTED, alpha=0.13, linewidth=0)
    axes.set_xticks(rows["r"], [f"{r}\n({papers})" for r, papers in zip(rows["r"], rows["papers_r"], strict=True)])
    axes.set_xlabel(f"r, of {frame} tokens of a frame (in the paper, of {PAPERS_FRAME})")
    axes.set_ylabel("Top-1 accuracy (%)")
    finish_axes(axes)
    figure.legend(loc="outside lower center", ncols=3)
    set_titles(
        axes, "STA and random dropping at equal counts", ["No training. Shaded: lowest to highest of the draws."]
    )
    return figure


def ablate(run: Path, device: str, results: Path | None, figures: Path | None) -> None:
    """Test a run's model with every row, print what was found, and write the result file and the figure.

    Args:
        run: Folder of a finished run.
        device: What to run on.
        results: The result file; none if None.
        figures: Folder of the figure token_amounts; not drawn if None.

    Raises:
        ValueError: If the model is none that the ablations are of, or the test clips have changed since the training.
    """
    folder = RunFolder(run)
    backbone = load_trained(trained_checkpoint(folder)).to(device)
    check_backbone(backbone)
    data = data_of(run)
    data.prepare_data()
    check_split(run, data)
    rows = rows_of(backbone)
    reductions = [tokens for row in rows for tokens in row.draws]
    reductions += [tokens for r in AMOUNTS for tokens in (sta(backbone, r=r), *random_as_sta(backbone, r=r))]
    batches = tqdm(data.evaluation_loader(data.clips("test")), "Testing", unit="batch")
    found = results_of(backbone, batches, reductions)
    shares = shares_of(backbone, reductions)
    table, amounts = table_rows(rows, found, shares), amount_rows(backbone, found, shares)
    for row in (*table, *amounts):
        print(json.dumps(row))
    dense = found[None]
    if results is not None:
        about: dict[str, Any] = {
            "clips": len(dense),
            "subjects": int(dense["group"].nunique()),
            "classes": len(data.class_names),
            "grid": list(backbone.reduction_grids[0]),
        }
        write_result(results, table, amounts=amounts, **about)
    if figures is not None:
        _, height, width = backbone.reduction_grids[0]
        for path in save_figure(amounts_figure(amounts, top1(dense), height * width), figures, "token_amounts"):
            print(path)
