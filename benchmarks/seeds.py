"""The main job with several seeds: what pruning costs, with its spread, and whether motion is needed.

    python benchmarks/seeds.py --config configs/demo.yaml --out runs/seeds-demo
    python benchmarks/seeds.py --config configs/ucf101_small.yaml --out runs/seeds-ucf -- --data.root <clips>

Everything after ``--`` goes to train.py. A seed fixes initialisation, order, random crops and the division of subjects.
Seeds whose table is there already are not run again. Writes summary.csv and summary.md, and prints the latter.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import datamodules  # noqa: E402
from lightning_modules import VideoClassifier  # noqa: E402


def run_seed(config: str, seed: int, folder: Path, more: list[str]) -> None:
    if (folder / "tables" / "pruning.csv").exists():
        return
    command = [sys.executable, "train.py", "fit", "--config", config, "--run", str(folder), "--replace_run", "true"]
    seeds = ["--seed_everything", str(seed), "--data.init_args.seed", str(seed)]
    subprocess.run([*command, *seeds, *more], cwd=ROOT, check=True)


@torch.no_grad()
def frozen_accuracy(folder: Path) -> float:
    """Top-1 of a run's best weights on the test clips when every frame is the middle one, in percent."""
    config = yaml.safe_load((folder / "config.yaml").read_text())["data"]
    data = getattr(datamodules, config["class_path"].rsplit(".", 1)[-1])(**config["init_args"])
    module = VideoClassifier.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True).eval()
    correct = total = 0
    for batch in data.evaluation_loader(data.clips("test")):
        clip = batch["clip"].to(module.device)
        middle = clip.shape[2] // 2
        frozen = clip[:, :, middle : middle + 1].expand_as(clip)
        correct += int((module(frozen).argmax(1).cpu() == batch["label"]).sum())
        total += len(batch["label"])
    return 100 * correct / total


def summarise(folders: list[Path]) -> pd.DataFrame:
    tables = [pd.read_csv(folder / "tables" / "pruning.csv").assign(run=folder.name) for folder in folders]
    rows = pd.concat(tables)
    frozen = [{"mode": "none, one frame repeated", "k": 0, "top1": frozen_accuracy(f), "run": f.name} for f in folders]
    rows = pd.concat([rows, pd.DataFrame(frozen)])
    grouped = rows.groupby(["method", "score", "mode", "k"], sort=False, dropna=False)
    columns = {name: (name, "mean") for name in ("params_change_pct", "macs_change_pct", "clips_per_s")}
    summary = grouped.agg(
        top1_mean=("top1", "mean"),
        top1_std=("top1", "std"),
        top1_min=("top1", "min"),
        top1_max=("top1", "max"),
        **columns,
    )
    summary["top1_of_each_seed"] = grouped["top1"].agg(lambda s: " ".join(f"{v:.1f}" for v in s))
    summary["removed_by_seed"] = grouped["removed_layers"].agg(
        lambda s: " | ".join("" if pd.isna(v) else str(v) for v in s)
    )
    return summary.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration of train.py fit")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the summary")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("more", nargs="*", help="further options of train.py, after --")
    args = parser.parse_args()
    folders = [args.out / f"seed{seed}" for seed in args.seeds]
    for seed, folder in zip(args.seeds, folders, strict=True):
        run_seed(args.config, seed, folder.resolve(), args.more)
    summary = summarise([folder.resolve() for folder in folders])
    summary.to_csv(args.out / "summary.csv", index=False)
    text = summary.to_markdown(index=False, floatfmt=".1f")
    (args.out / "summary.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
