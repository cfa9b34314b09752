"""The main job with several seeds: what pruning costs, with its spread, and whether motion is needed.

    python benchmarks/seeds.py --config configs/demo.yaml --out runs/seeds-demo
    python benchmarks/seeds.py --config configs/ucf101_small.yaml --out runs/seeds-ucf -- --data.root <clips>

Everything after ``--`` goes to train.py. A seed fixes initialisation, order, random crops and the division of subjects.
Seeds whose table is there already are not run again. Writes what `train.py compare` writes, and one_frame.csv: the
accuracy of each unpruned model when every frame of a clip is its middle one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, comparison_tables, write_result  # noqa: E402
from sightline.export.evaluation import top1_percent  # noqa: E402
from sightline.report.comparison.compare import compare_runs  # noqa: E402
from sightline.run.csv_table import read_table  # noqa: E402
from sightline.run.paths import ONE_FRAME, RunFolder  # noqa: E402


def run_seed(config: str, seed: int, folder: Path, more: list[str]) -> None:
    if RunFolder(folder).pruning_table.exists():
        return
    command = [sys.executable, "train.py", "fit", "--config", config, "--run", str(folder), "--replace_run", "true"]
    seeds = ["--seed_everything", str(seed), "--data.init_args.seed", str(seed)]
    subprocess.run([*command, *seeds, *more], cwd=ROOT, check=True)


def frozen_accuracy(folder: Path) -> float:
    """Top-1 of a run's unpruned model on the test clips when every frame is the middle one, in percent."""
    return top1_percent(read_table(RunFolder(folder).predictions(ONE_FRAME)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration of train.py fit")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_results_option(parser)
    parser.add_argument("more", nargs="*", help="further options of train.py, after --")
    args = parser.parse_args()
    folders = [args.out / f"seed{seed}" for seed in args.seeds]
    for seed, folder in zip(args.seeds, folders, strict=True):
        run_seed(args.config, seed, folder.resolve(), args.more)
    compare_runs([str(folder) for folder in folders], str(args.out))
    rows = [(folder.name, frozen_accuracy(folder.resolve())) for folder in folders]
    frozen = pd.DataFrame(rows, columns=["run", "top1_one_frame"])
    frozen.to_csv(args.out / "one_frame.csv", index=False)
    print(frozen.to_string(index=False))
    if args.results is not None:
        tables = comparison_tables(args.out, folders)
        write_result(args.results, tables.pop("rows"), sys.argv[1:], seeds=args.seeds, one_frame=frozen, **tables)


if __name__ == "__main__":
    main()
