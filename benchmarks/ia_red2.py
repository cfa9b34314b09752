"""IA-RED² against the controls, on the cabin: accuracy at equal shares of tokens, before and after tuning the blocks.

    python benchmarks/ia_red2.py --out runs/ia-red2 --backbone timesformer_joint_demo --seeds 0 1 2

Trains, for each seed, a model of all tokens (configs/demo.yaml), its interpreters (configs/ia_red2_demo.yaml), and from
both the blocks for two epochs under each of `TUNED`'s own dropping at half of the tokens, with the same parts frozen.
All are tested on the clips that no training has seen, those of validation among them: best epochs are chosen by these,
for every row alike. What is finished is not trained again.

Besides: one map for all clips, the mean of the interpreter's over the training clips; and magnitude pruning of the
blocks' linear layers without and with fewer tokens (figure 5 of the paper).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.result_files import add_results_option, write_result  # noqa: E402
from datamodules import SyntheticCabin  # noqa: E402
from sightline.backbones import Backbone, Place, Reducer, TokenState  # noqa: E402
from sightline.checkpoints.files import read_checkpoint  # noqa: E402
from sightline.checkpoints.trained import model_of  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402
from sightline.statistics.paired_change import paired_change  # noqa: E402
from sightline.statistics.top1_interval import top1_interval  # noqa: E402
from sightline.tokens import IARED2, TokenReduction, trace  # noqa: E402
from sightline.tokens.equal_kept import at_kept  # noqa: E402
from sightline.tokens.share_reducer import ShareReducer  # noqa: E402

KEPT = (0.7, 0.5, 0.3)
METHODS = ("random", "temporal_difference", "attention", "sta", "ia_red2")
TUNED = ("random", "temporal_difference", "ia_red2")
CUT = (0.0, 0.3, 0.5, 0.6, 0.7)
"""Shares of the weights of linear layers that are set to zero."""


@dataclass(frozen=True)
class OneMap(ShareReducer):
    """Keeps the same cells of every clip: those with the highest values of one map, (C,)."""

    values: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(1))

    def scores(self, place: Place, state: TokenState) -> Tensor:
        return self.values.expand(state.batch, -1)


@dataclass(frozen=True)
class Clips:
    """Clips (B, 3, T, H, W) with their labels (B,) and subjects."""

    clips: Tensor
    labels: Tensor
    groups: list[str]


def train(name: str, out: Path, config: str, *more: str) -> RunFolder:
    """Train a run, unless it is there."""
    run = RunFolder(out / name)
    if not run.best_checkpoint.is_file():
        command = [
            sys.executable,
            "train.py",
            "fit",
            "--config",
            config,
            "--run",
            str(out / name),
            "--replace_run",
            "true",
        ]
        subprocess.run([*command, "--trainer.callbacks", "[]", *more], cwd=ROOT, check=True)
    return run


def train_all(backbone: str, seed: int, out: Path, motion: bool) -> dict[str, RunFolder]:
    """Train what is compared of one seed: base, policy, and the tuned models by their reductions."""
    same = ["--seed_everything", str(seed), "--data.seed", str(seed), "--model.backbone", backbone]
    base = train("base", out, "configs/demo.yaml", *same, "--trainer.max_epochs", "30")
    demo, held = "configs/ia_red2_demo.yaml", f'{{"groups": 1, "heads": 4, "motion": {str(motion).lower()}}}'
    from_base = ["--model.weights", str(base.best_checkpoint)]
    policy = train("policy", out, demo, *same, *from_base, "--model.interpreters", held)
    runs = {"base": base, "policy": policy}
    tuning = ["--model.policy_epochs", "0", "--model.tuning_epochs", "2", "--trainer.max_epochs", "2"]
    for name in TUNED:
        learned = name == "ia_red2"
        start = ["--model.weights", str(policy.best_checkpoint)] if learned else from_base
        tokens = ["--model.tokens", f'{{"name": "{name}"}}', "--model.interpreters", held if learned else "null"]
        runs[name] = train(
            f"tuned-{name}", out, demo, *same, *tuning, *start, *tokens, "--checkpoint.monitor", "val/top1"
        )
    return runs


def model_in(run: RunFolder) -> Backbone:
    return model_of(read_checkpoint(run.best_checkpoint), run.best_checkpoint)


def clips_of(run: RunFolder, *splits: str) -> Clips:
    """Read the clips of some splits of a run's data."""
    data = SyntheticCabin(**yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]["init_args"])
    data.prepare_data()
    batches = [batch for split in splits for batch in data.evaluation_loader(data.clips(split), 60)]
    clips, labels = (torch.cat([batch[key] for batch in batches]) for key in ("clip", "label"))  # type: ignore[literal-required]
    return Clips(clips, labels, [group for batch in batches for group in batch["group"]])


@torch.no_grad()
def right(backbone: Backbone, clips: Clips, reducer: Reducer | None = None) -> list[bool]:
    """Return which clips a model predicts rightly."""
    found = [backbone(some, reducer=reducer).argmax(dim=1) for some in clips.clips.split(60)]
    return (torch.cat(found) == clips.labels).tolist()


def mean_map(backbone: Backbone, clips: Clips) -> Tensor:
    """Return the mean of the first interpreter's scores over clips, (C,)."""
    parts = [trace(backbone, some, IARED2(kept=1.0))[0].heat for some in clips.clips.split(60)]
    return torch.cat([part for part in parts if part is not None]).mean(dim=0)


def tested(runs: dict[str, RunFolder]) -> pd.DataFrame:
    """Test every method at every share, untuned and tuned: one row per clip."""
    unseen, policy = clips_of(runs["base"], "val", "test"), model_in(runs["policy"])
    one_map = mean_map(policy, clips_of(runs["base"], "train"))
    results = {("all tokens", 1.0, False): right(policy, unseen)}
    for kept in KEPT:
        for name in METHODS:
            amount, _ = at_kept(TokenReduction.of(name), policy, kept, unseen.clips[:1])
            results[name, kept, False] = right(policy, unseen, amount.build())
        results["one map", kept, False] = right(policy, unseen, OneMap(kept=kept, values=one_map))
        for name in TUNED:
            reducer = TokenReduction.of(name, {"kept": kept}).build()
            results[name, kept, True] = right(model_in(runs[name]), unseen, reducer)
    return pd.concat(
        pd.DataFrame({"method": m, "kept": k, "tuned": t, "clip": range(len(r)), "group": unseen.groups, "right": r})
        for (m, k, t), r in results.items()
    )


def cut_weights(backbone: Backbone, share: float) -> Backbone:
    """Return a copy in which the smallest weights of every linear layer of the blocks are zero."""
    smaller = copy.deepcopy(backbone)
    for layer in smaller.layer_modules().values():
        for module in layer.modules():
            if isinstance(module, nn.Linear) and share:
                size = module.weight.abs()
                limit = size.flatten().kthvalue(max(round(share * size.numel()), 1)).values
                module.weight.data[size <= limit] = 0
    return smaller


def cut_and_reduced(runs: dict[str, RunFolder]) -> list[dict[str, float]]:
    """Return accuracies with weights cut, tokens dropped, and both, without tuning (the paper's figure 5)."""
    unseen, policy, rows = clips_of(runs["base"], "val", "test"), model_in(runs["policy"]), []
    for share in CUT:
        smaller = cut_weights(policy, share)
        for kept in (1.0, *KEPT):
            found = right(smaller, unseen, None if kept == 1 else IARED2(kept=kept))
            rows.append({"weights_cut": share, "kept": kept, "top1": 100 * sum(found) / len(found)})
    return rows


def summed_up(clips: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies over the clips of all seeds, with intervals, and differences to the controls, in points."""
    rows = []
    for (method, kept, tuned), own in clips.groupby(["method", "kept", "tuned"], sort=False):
        interval = top1_interval(own["right"], own["group"].tolist())
        row = {"method": method, "kept": kept, "tuned": tuned, "top1": 100 * own["right"].mean()}
        row |= {"top1_low": interval.low, "top1_high": interval.high, "clips": len(own)}
        for control in ("random", "temporal_difference"):
            other = clips[(clips["method"] == control) & (clips["kept"] == kept) & (clips["tuned"] == tuned)]
            if len(other) == len(own) and method != control:
                differences = own["right"].to_numpy(int) - other["right"].to_numpy(int)
                change = paired_change(differences, own["group"])
                row |= {f"vs_{control}": 100 * change.change, f"vs_{control}_low": 100 * change.low}
                row |= {f"vs_{control}_high": 100 * change.high}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="timesformer_joint_demo", help="a registered backbone of one stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--motion", action="store_true", help="interpreters that see how tokens change")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    add_results_option(parser)
    args = parser.parse_args()
    parts, cuts = [], []
    for seed in args.seeds:
        runs = train_all(args.backbone, seed, (args.out / f"seed{seed}").resolve(), args.motion)
        found = tested(runs)
        parts.append(found.assign(seed=seed))
        cuts += [{"seed": seed, **row} for row in cut_and_reduced(runs)]
    rows = summed_up(pd.concat(parts, ignore_index=True))
    cut = pd.DataFrame(cuts).groupby(["weights_cut", "kept"], as_index=False)["top1"].mean()
    print(rows.to_string(index=False))
    print(cut.pivot(index="weights_cut", columns="kept", values="top1").to_string())
    if args.results is not None:
        write_result(args.results, rows, cut=cut)


if __name__ == "__main__":
    main()
