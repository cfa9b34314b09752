"""Two processes on one machine give what one gives. Each test starts the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lightning_modules import VideoClassifier
from tests.conftest import CABIN, copied_clips
from tests.lightning_modules.test_video_classifier import make_trainer

ROOT = Path(__file__).resolve().parents[1]


def run_train(*arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIGHTLINE_")}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    command = [sys.executable, "train.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout


TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def assert_same_scores(one: Path, two: Path) -> None:
    for kind in ("heads", "layers"):
        a, b = (pd.read_parquet(run / "relevance" / "train" / f"{kind}.parquet") for run in (one, two))
        keys = ["sample_id", "label", "predicted", "group", "layer", "site", "head"]
        pd.testing.assert_frame_equal(a[keys], b[keys])
        numbers = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
        # Batches are composed differently, so kernels round differently.
        pd.testing.assert_frame_equal(a[numbers], b[numbers], rtol=0, atol=1e-5)
        assert not b.duplicated(["sample_id", "layer", "site", "head"]).any()


def test_two_processes_fit_and_score_as_one(tiny_config: Path, tmp_path: Path):
    two = tmp_path / "two"
    run_train("fit", "--config", str(tiny_config), "--run", str(two), *TWO)
    splits = pd.read_csv(two / "splits.csv")
    scores = pd.read_parquet(two / "relevance/train/layers.parquet")
    assert scores["sample_id"].drop_duplicates().tolist() == splits.query("split == 'train'")["sample_id"].tolist()
    table = pd.read_csv(two / "tables/pruning.csv")
    assert len(table) == 5
    for plan in table["plan_id"]:
        predictions = pd.read_csv(two / "tables/predictions" / f"{plan}.csv")
        assert predictions["sample_id"].tolist() == splits.query("split == 'test'")["sample_id"].tolist()
    assert not (tmp_path / "two-2").exists()

    # One choice of kernels for both, measured by the first.
    assert [entry["machine"]["threads"] for entry in json.loads((two / "kernels.json").read_text())["machines"]] == [1]

    one = tmp_path / "one"
    one.mkdir()
    for name in ("config.yaml", "splits.csv"):
        (one / name).write_bytes((two / name).read_bytes())
    alone = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    run_train("ablate", "--run", str(one), "--ckpt_path", str(two / "checkpoints/best.ckpt"), *alone)
    assert_same_scores(one, two)


@pytest.mark.slow
def test_two_processes_learn_the_policy_of_one(cabin_root: Path, tmp_path: Path):
    """On the same batches of all processes together: draws hang on the clip, and not on who has it."""
    vit = {"backbone": "vit_demo", "options": {"width": 16, "depth": 2, "heads": 2}}
    start = VideoClassifier(num_classes=2, frames=CABIN["frames"], size=CABIN["size"], **vit)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.strategy.connect(start)
    trainer.save_checkpoint(tmp_path / "start.ckpt")
    learning = {"policy_epochs": 1, "tuning_epochs": 1, "policy_learning_rate": 0.01, "learning_rate": 0.001}
    config = {
        "seed_everything": 0,
        "data": {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}},
        "model": {
            "class_path": "lightning_modules.PolicyClassifier",
            "init_args": {**vit, **learning, "weights": str(tmp_path / "start.ckpt")},
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0, "gradient_clip_val": 1.0},
    }
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(config))
    found = {}
    for name, more in (("one", ["--data.batch_size", "8"]), ("two", ["--data.batch_size", "4", *TWO])):
        run_train("fit", "--config", str(tmp_path / "learn.yaml"), "--run", str(tmp_path / name), *more)
        found[name] = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    before = start.state_dict()
    assert any(not torch.equal(found["one"][name], before[name]) for name in before if ".blocks." in name)
    assert any(name.startswith("backbone.reducer.") for name in found["one"])
    for name, value in found["one"].items():
        # The same sums in another order; Adam divides them by their own size.
        torch.testing.assert_close(found["two"][name], value, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_ablate_a_finished_run(tiny_config: Path, tmp_path: Path):
    one = tmp_path / "one"
    run_train("fit", "--config", str(tiny_config), "--run", str(one))
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.yaml").write_bytes((one / "config.yaml").read_bytes())
    run_train("ablate", "--run", str(again), "--ckpt_path", str(one / "checkpoints/best.ckpt"), *TWO)
    assert_same_scores(one, again)


@pytest.mark.slow
def test_two_processes_stop_together_at_too_many_bad_clips(tiny_config: Path, cabin_root: Path, tmp_path: Path):
    config = yaml.safe_load(tiny_config.read_text()) | {"data": copied_clips(cabin_root, tmp_path / "clips")}
    for file in sorted((tmp_path / "clips").rglob("steering_00[0-2].mp4")):
        file.write_bytes(b"")
    # 18 of 72 clips, about 12 of the 48 training clips: each process meets about six in an epoch.
    config["data"]["init_args"] |= {"max_bad_fraction": 9 / 48, "batch_size": 1}
    tiny_config.write_text(yaml.safe_dump(config))
    command = [sys.executable, "train.py", "fit", "--config", str(tiny_config), "--run", str(tmp_path / "run"), *TWO]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0
    assert "Expected at most 9 unreadable clip(s) among the 48 of the train split, met 1" in done.stderr
    listed = pd.read_csv(tmp_path / "run" / "tables" / "unreadable.csv")
    assert len(listed) > 9
    assert listed["sample_id"].is_unique
    parts = sorted((tmp_path / "run" / "tables" / ".unreadable.csv.parts").iterdir())
    assert [len(part.read_text().splitlines()) <= 9 for part in parts] == [True, True]
