"""What recovery brings back: the demo's models without three layers, trained on with the full ones as teachers.

    python benchmarks/seeds.py --config configs/demo.yaml --out runs/seeds-demo
    python benchmarks/recovery.py --runs runs/seeds-demo/seed? --out runs/recovery

Training settings are those of configs/recovery.yaml, seeds those of the run. A run whose table is there is not run
again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from sightline.run.csv_table import read_table  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402

PLAN = "relevance-r-lowest-k3"


def recover(run: Path, out: Path) -> pd.DataFrame:
    """Recover one run's model; return the accuracies of the full, the pruned and the recovered one."""
    source, table = RunFolder(run), RunFolder(out).table("recovery")
    if not table.exists():
        command = [sys.executable, "train.py", "fit", "--config", "configs/recovery.yaml", "--run", str(out)]
        models = ["--model.init_args.student", str(source.pruned(PLAN))]
        models += ["--model.init_args.teacher", str(source.best_checkpoint)]
        # The division of the drivers is the run's: the teacher must not have been trained on the test clips.
        trained = yaml.safe_load(source.config.read_text(encoding="utf-8"))
        seeds = ["--seed_everything", str(trained["seed_everything"])]
        seeds += ["--data.init_args.seed", str(trained["data"]["init_args"]["seed"])]
        subprocess.run([*command, "--replace_run", "true", *models, *seeds], cwd=ROOT, check=True)
    return read_table(table).assign(run=run.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="finished runs of configs/demo.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recovered runs")
    add_results_option(parser)
    args = parser.parse_args()
    every = pd.concat([recover(run.resolve(), (args.out / run.name).resolve()) for run in args.runs])
    by_model = every.groupby("model", sort=False)
    rows = by_model[["top1", "params", "macs"]].mean().assign(
        top1_sd=by_model["top1"].std(), top1_by_run=by_model["top1"].agg(lambda s: " | ".join(f"{v:.1f}" for v in s))
    )  # fmt: skip
    rows["params_m"], rows["macs_m"] = rows["params"] / 1e6, rows["macs"] / 1e6
    print(rows.to_string())
    if args.results is not None:
        write_result(args.results, rows.reset_index())


if __name__ == "__main__":
    main()
