"""The runs that `benchmarks.ia_red2` compares: trained once, then read from their folders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from datamodules import SyntheticCabin
from sightline.backbones import Backbone, Reducer
from sightline.checkpoints.files import read_checkpoint
from sightline.checkpoints.trained import model_of
from sightline.run.paths import RunFolder

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ("random", "temporal_difference")
POLICIES = {"ia_red2": False, "ia_red2 motion": True}
"""What is learned, and whether its interpreters see motion."""
BATCH = 60


@dataclass(frozen=True)
class Clips:
    """Clips (B V, 3, T, H, W), V views of each in a row, with the labels (B,) and subjects of each."""

    clips: Tensor
    labels: Tensor
    groups: list[str]


def train(name: str, out: Path, config: str, *more: str) -> RunFolder:
    """Train a run, unless it is there."""
    run = RunFolder(out / name)
    if not run.best_checkpoint.is_file():
        command = [sys.executable, "train.py", "fit", "--config", config, "--run", str(out / name)]
        command += ["--replace_run", "true", "--trainer.callbacks", "[]", *more]
        subprocess.run(command, cwd=ROOT, check=True)
    return run


def train_policy(name: str, base: RunFolder, out: Path, same: Sequence[str], motion: bool, groups: int) -> RunFolder:
    """Train the interpreters alone on a trained model."""
    epochs = yaml.safe_load((ROOT / POLICY).read_text(encoding="utf-8"))["trainer"]["max_epochs"]
    interpreters = ["--model.interpreters", _interpreters(motion, groups), "--trainer.max_epochs", str(groups * epochs)]
    return train(name, out, POLICY, *same, "--model.weights", str(base.best_checkpoint), *interpreters)


def train_all(backbone: str, seed: int, out: Path, groups: int = 1) -> dict[str, RunFolder]:
    """Train what is compared of one seed: the base, the policies, and the tuned models.

    Returns:
        ``base``; the policies under their names; ``tuned`` and a name for the blocks tuned under that dropping.
    """
    same = ["--seed_everything", str(seed), "--data.seed", str(seed), "--model.backbone", backbone]
    runs = {"base": train("base", out, BASE, *same, *LONGER)}
    for name, motion in POLICIES.items():
        folder = "policy-motion" if motion else "policy"
        runs[name] = train_policy(folder, runs["base"], out, same, motion, groups)
    for name in (*CONTROLS, *POLICIES):
        learned = name in POLICIES
        start = runs[name if learned else "base"]
        tokens = ["--model.tokens", f'{{"name": "{name.split()[0]}"}}']
        held = ["--model.interpreters", _interpreters(POLICIES[name], groups) if learned else "null"]
        # Blocks behind every group are tuned in turn: as many epochs in all for what has no groups.
        each = -(-TUNING // groups) if learned else TUNING
        epochs = ["--model.policy_epochs", "0", "--model.tuning_epochs", str(each)]
        epochs += ["--trainer.max_epochs", str(each * groups if learned else each)]
        weights = ["--model.weights", str(start.best_checkpoint), "--checkpoint.monitor", "val/top1"]
        folder = f"tuned-{name.replace(' ', '-')}"
        runs[f"tuned {name}"] = train(folder, out, POLICY, *same, *epochs, *weights, *tokens, *held)
    return runs


def train_size(backbone: str, seed: int, out: Path, size: int) -> dict[str, RunFolder]:
    """Train a base and its interpreters at another resolution; names as of `train_all`."""
    same = ["--seed_everything", str(seed), "--data.seed", str(seed), "--model.backbone", backbone]
    same += ["--data.size", str(size), "--data.short_side", str(size * 9 // 8)]
    base = train(f"base-{size}", out, BASE, *same, *LONGER)
    return {"base": base, "ia_red2": train_policy(f"policy-{size}", base, out, same, motion=False, groups=1)}


def model_in(run: RunFolder) -> Backbone:
    return model_of(read_checkpoint(run.best_checkpoint), run.best_checkpoint)


def clips_of(run: RunFolder, *splits: str, crops: int = 1) -> Clips:
    """Read the clips of some splits of a run's data, each in one crop or in the left, centre and right one."""
    options: dict[str, Any] = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]["init_args"]
    data = SyntheticCabin(**{**options, "test_crops": crops})
    data.prepare_data()
    batches = [batch for split in splits for batch in data.evaluation_loader(data.clips(split), BATCH, views=crops > 1)]
    clips, labels = (torch.cat([batch[key] for batch in batches]) for key in ("clip", "label"))  # type: ignore[literal-required]
    return Clips(clips, labels, [group for batch in batches for group in batch["group"]])


@torch.no_grad()
def right(backbone: Backbone, clips: Clips, reducer: Reducer | None = None) -> Tensor:
    """Return 1 for each clip that a model predicts rightly, by the mean of its views' probabilities; float64 (B,)."""
    found = torch.cat([backbone(some, reducer=reducer).softmax(dim=1) for some in clips.clips.split(BATCH)])
    views = found.unflatten(0, (clips.labels.numel(), -1)).mean(dim=1)
    return (views.argmax(dim=1) == clips.labels).double()


def _interpreters(motion: bool, groups: int) -> str:
    return json.dumps({"groups": groups, "heads": 4, "motion": motion})


BASE, POLICY = "configs/demo.yaml", "configs/ia_red2_demo.yaml"
LONGER = ("--trainer.max_epochs", "30")
TUNING = 2
"""Epochs in which blocks get used to a dropping."""
