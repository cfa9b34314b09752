"""How good is the chosen set of layers among all sets of its size? Tests every one of them.

    python benchmarks/all_sets.py --runs runs/tables-small/*/seed? --jobs 2 --out runs/all-sets

Of small models all sets of k layers can be tested: there are 41 of up to three of six layers. This gives exactly what
random pruning keeps, instead of from a few draws, and every method's place among all sets: the share of the others that
keep less accuracy on the test clips (ties count half; 100 % is the best set). Runs are finished ones with
tables/pruning.csv, whose depths are taken. Writes OUT/sets.csv (every set of every run), OUT/places.csv and places.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import datamodules  # noqa: E402
from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline.backbones import Backbone  # noqa: E402
from sightline.backbones.contract.state import TokenState  # noqa: E402
from sightline.checkpoints.files import read_checkpoint  # noqa: E402
from sightline.checkpoints.structure import structure_of  # noqa: E402
from sightline.checkpoints.trained import model_of  # noqa: E402
from sightline.report.tables.markdown import markdown_table  # noqa: E402
from sightline.report.tables.pruning import read_pruning_table  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402

Layers = tuple[int, ...]
METHODS = {
    "lowest r": ("relevance", "r", "lowest"),
    "highest r": ("relevance", "r", "highest"),
    "greedy": ("greedy", "r", "lowest"),
    "block influence": ("block_influence", "cosine", "lowest"),
    "gradient": ("gradient", "taylor", "lowest"),
    "last": ("last", "from_end", "lowest"),
}


def every_set(backbone: Backbone, clips: torch.Tensor, most: int) -> Iterator[tuple[Layers, torch.Tensor]]:
    """Yield every set of up to ``most`` removable layers with the logits without it; sets share how they begin."""
    removable = {info.index for info in backbone.layers if info.removable}

    def visit(state: TokenState, index: int, removed: Layers) -> Iterator[tuple[Layers, torch.Tensor]]:
        if index == backbone.depth:
            yield removed, backbone.classify(state)
            return
        yield from visit(backbone.run(state, index, index + 1), index + 1, removed)
        if index in removable and len(removed) < most:
            skipped = backbone.run(state, index, index + 1, skip=[index])
            yield from visit(skipped, index + 1, (*removed, index))

    yield from visit(backbone.embed(clips), 0, ())


def data_of(run: Path) -> datamodules.ClipDataModule:
    config = yaml.safe_load(RunFolder(run).config.read_text())["data"]
    return getattr(datamodules, config["class_path"].rsplit(".", 1)[-1])(**config["init_args"])


@torch.no_grad()
def test_sets(run: Path, threads: int) -> pd.DataFrame:
    """Return run, backbone, k, removed and top1 (percent of the test clips) of every set."""
    torch.set_num_threads(threads)
    data = data_of(run)
    path = RunFolder(run).best_checkpoint
    content = read_checkpoint(path)
    backbone = model_of(content, path)
    most = int(read_pruning_table(RunFolder(run).pruning_table)["k"].max())
    correct: dict[Layers, int] = {}
    total = 0
    for batch in data.evaluation_loader(data.clips("test")):
        if not batch["sample_id"]:
            continue  # none of its clips could be read
        total += len(batch["sample_id"])
        for removed, logits in every_set(backbone, batch["clip"], most):
            right = int((logits.argmax(1) == batch["label"]).sum())
            correct[removed] = correct.get(removed, 0) + right
    rows = [(len(removed), " ".join(map(str, removed)), 100 * right / total) for removed, right in correct.items()]
    found = pd.DataFrame(rows, columns=["k", "removed", "top1"])
    print(f"{run}: {len(found)} sets", flush=True)
    return found.assign(run=run.name, backbone=structure_of(content)["backbone"])


def places(run: Path, sets: pd.DataFrame) -> pd.DataFrame:
    """Return where every method's set stands among all of its size."""
    models = read_pruning_table(RunFolder(run).pruning_table)
    rows = []
    for k, same in sets[sets["k"] > 0].groupby("k"):
        top1 = same.set_index("removed")["top1"]
        for name, (method, score, mode) in METHODS.items():
            named = (models["method"] == method) & (models["score"] == score) & (models["mode"] == mode)
            for removed in models.loc[named & (models["k"] == k), "removed_layers"]:
                others = top1.drop(removed).to_numpy()
                beaten = np.mean(others < top1[removed]) + np.mean(others == top1[removed]) / 2
                rows.append((name, k, removed, top1[removed], 100 * beaten, top1.mean(), top1.max(), len(top1)))
    columns = ["method", "k", "removed", "top1", "beats_pct", "mean_of_all", "best_of_all", "sets"]
    return pd.DataFrame(rows, columns=columns).assign(run=run.name, backbone=sets["backbone"].iloc[0])


def page(found: pd.DataFrame) -> str:
    """Lay out the mean over runs: accuracy of each method's set, in brackets the share of other sets that it beats."""
    lines = []
    for (backbone, k), same in found.groupby(["backbone", "k"], sort=False):
        whole = same.drop_duplicates("run")
        line = {"backbone": backbone, "k": str(k), "sets": str(whole["sets"].iloc[0])}
        line |= {f"{which} of all": f"{whole[f'{which}_of_all'].mean():.1f}" for which in ("mean", "best")}
        for name in METHODS:
            own = same[same["method"] == name]
            line[name] = f"{own['top1'].mean():.1f} ({own['beats_pct'].mean():.0f} %)" if len(own) else ""
        lines.append(line)
    table = pd.DataFrame(lines)
    columns = {name: lambda row, place=place: row[place] for place, name in enumerate(table.columns)}
    return markdown_table(table, columns, list(columns)[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with its share of the cores")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    add_results_option(parser)
    args = parser.parse_args()
    runs = [run.resolve() for run in args.runs]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    for run in runs:
        data_of(run).prepare_data()  # here and not in the processes, which would all render the same
    with ProcessPoolExecutor(args.jobs) as pool:
        sets = list(pool.map(test_sets, runs, [threads] * len(runs)))
    found = pd.concat([places(run, own) for run, own in zip(runs, sets, strict=True)], ignore_index=True)
    args.out.mkdir(parents=True, exist_ok=True)
    pd.concat(sets, ignore_index=True).to_csv(args.out / "sets.csv", index=False, float_format="%.6g")
    found.to_csv(args.out / "places.csv", index=False, float_format="%.6g")
    (args.out / "places.md").write_text(page(found))
    print(page(found))
    if args.results is not None:
        measures = ["top1", "beats_pct", "mean_of_all", "best_of_all", "sets"]
        means = found.groupby(["backbone", "k", "method"], sort=False)[measures].mean().reset_index()
        write_result(args.results, means, every_run=found)


if __name__ == "__main__":
    main()
