"""Do relevant deep heads look at what matters? The pointing game over several runs, put into one table.

    python benchmarks/pointing.py --runs runs/tables-small/*/seed? --split train --jobs 2 --out runs/pointing

Runs are finished ones on data with boxes (the synthetic cabin) whose heads are scored on the training clips. Each is
explained by `train.py explain` with PointingGame alone, unless its table is newer than its weights. Writes OUT/
pointing_<split>.csv (every run's summary, with intervals) and .md (mean and spread over the runs of a backbone).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline.report.tables.markdown import markdown_table  # noqa: E402
from sightline.report.tables.pointing import CORRELATION, RELEVANT  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402

LEVELS = (RELEVANT, "uniform map")
CONTRASTS = ("difference to all other heads", "difference to other deep heads", CORRELATION)


def explain(run: Path, split: str, threads: int) -> None:
    """Play the pointing game on one run; its output goes to explain-<split>.log in the run's folder."""
    table = RunFolder(run).table(f"pointing_{split}_summary")
    if table.is_file() and table.stat().st_mtime > RunFolder(run).best_checkpoint.stat().st_mtime:
        print(f"{run}: explained before", flush=True)
        return
    command = [sys.executable, "train.py", "explain", "--run", str(run), "--split", split]
    environment = {"WANDB_MODE": "disabled", **os.environ, "OMP_NUM_THREADS": str(threads)}
    log = run / f"explain-{split}.log"
    with log.open("w") as output:
        code = subprocess.run(
            [*command, "--trainer.callbacks", "callbacks.PointingGame"],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
        ).returncode  # fmt: skip
    if code:
        sys.exit(f"{shlex.join(command)} failed, see {log}")
    print(f"{run}: explained", flush=True)


def read_summaries(runs: list[Path], split: str) -> pd.DataFrame:
    """Return the summaries of all runs, with columns backbone and run."""
    found = []
    for run in runs:
        config = yaml.safe_load(RunFolder(run).config.read_text())
        summary = pd.read_csv(RunFolder(run).table(f"pointing_{split}_summary"))
        found.append(summary.assign(backbone=config["model"]["init_args"]["backbone"], run=run.name))
    return pd.concat(found, ignore_index=True)


def overview(summaries: pd.DataFrame) -> pd.DataFrame:
    """Return one row per backbone, target and site, one column per quantity: mean and spread over runs.

    Of contrasts it also says in how many runs the 95 % interval lies above 0 and below 0, where there are intervals.
    """
    rows = []
    pointing = summaries[summaries["measure"] == "pointing"]
    for (backbone, target, site), part in pointing.groupby(["backbone", "target", "site"], sort=False):
        row = {"backbone": backbone, "target": target, "site": site}
        for quantity in (*LEVELS, *CONTRASTS):
            own = part[part["quantity"] == quantity]
            spread = f" ± {own['value'].std():.2f}" if len(own) > 1 else ""
            told = f"{own['value'].mean():.2f}{spread}"
            if quantity in CONTRASTS and own["low"].notna().any():
                told += f"; {(own['low'] > 0).sum()} above, {(own['high'] < 0).sum()} below"
            row[quantity] = told
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished runs")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test", help="the clips to look at")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with its share of the cores")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    add_results_option(parser)
    args = parser.parse_args()
    runs = [run.resolve() for run in args.runs]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: explain(run, args.split, threads), runs))
    summaries = read_summaries(runs, args.split)
    args.out.mkdir(parents=True, exist_ok=True)
    summaries.to_csv(args.out / f"pointing_{args.split}.csv", index=False)
    table = overview(summaries)
    columns = {name: lambda row, place=place: row[place] for place, name in enumerate(table.columns)}
    text = markdown_table(table, columns, list(columns)[3:])
    path = args.out / f"pointing_{args.split}.md"
    path.write_text(text)
    print(f"{text}\n{path}")
    if args.results is not None:
        write_result(args.results, table, every_run=summaries)


if __name__ == "__main__":
    main()
