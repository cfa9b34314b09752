"""The benchmark that makes the tables: what it configures, and one tiny turn of all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import reproduce_tables  # noqa: E402

from sightline.backbones import build_backbone  # noqa: E402
from sightline.pruning.selection import check_depths  # noqa: E402


@pytest.mark.parametrize("family", reproduce_tables.SIZES["small"])
def test_every_small_family_can_be_cut_as_deep_as_it_is_told(family):
    args = reproduce_tables.arguments_of(["--seeds", "4"])
    config = reproduce_tables.configuration(args, family, 4)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    size = {"frames": data["frames"], "size": data["size"]}
    layers = build_backbone(model["backbone"], 20, {**model["options"], **size}).layers
    (pruning,) = [c for c in config["trainer"]["callbacks"] if c["class_path"].endswith("PrunedCheckpoints")]
    check_depths(pruning["init_args"]["depths"], layers)
    assert max(pruning["init_args"]["depths"]) >= len(layers) // 2
    assert (config["seed_everything"], data["seed"]) == (4, 4)


def test_wrong_options_are_told(capsys):
    for words in (["--weights", "swin=x"], ["--weights", "vit"], ["--jobs", "0"]):
        with pytest.raises(SystemExit):
            reproduce_tables.arguments_of(words)
    assert "--weights takes FAMILY=FILE" in capsys.readouterr().err
    args = reproduce_tables.arguments_of(["--seeds", "0", "--", "--trainer.max_epochs", "1"])
    assert (args.seeds, args.more) == ([0], ["--trainer.max_epochs", "1"])


def tiny(tmp_path: Path) -> list[str]:
    config = yaml.safe_load((ROOT / "configs/reproduce_small.yaml").read_text())
    few = {"actions": ["steering", "talking"], "subjects": 6, "clips_per_action": 2, "clip_frames": 8}
    config["data"]["init_args"] |= {"root": str(tmp_path / "cabin"), **few, "batch_size": 8}
    config["trainer"]["callbacks"][-1]["init_args"]["latency_repeats"] = 1
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    out = ["--out", str(tmp_path / "out"), "--config", str(tmp_path / "tiny.yaml")]
    return [*out, "--families", "vit", "timesformer", "--seeds", "0", "--jobs", "2"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_benchmark_runs_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*tiny(tmp_path), "--", "--trainer.max_epochs", "1"]
    reproduce_tables.main(words)
    out = tmp_path / "out"
    table = pd.read_csv(out / "tables" / "accuracy.csv")
    assert set(table["backbone"]) == {"vit_demo", "timesformer_demo"}
    methods = {"relevance", "greedy", "random", "block_influence", "gradient", "last"}
    assert set(table["method"].dropna()) == methods
    assert set(table["score"].dropna()) >= {"r", "jsd", "dprob"}
    assert "## Removed layers" in (out / "results.md").read_text()
    # A run that was interrupted after its training goes on from there; the other one is left alone.
    done = out / "timesformer" / "seed0" / "checkpoints" / "best.ckpt"
    interrupted = out / "vit" / "seed0"
    before = (done.stat().st_mtime_ns, (interrupted / "checkpoints" / "best.ckpt").read_bytes())
    (interrupted / "tables" / "pruning_by_subject.csv").unlink()
    capsys.readouterr()
    reproduce_tables.main(words)
    assert "2 runs, 1 of them finished before" in capsys.readouterr().out
    assert (interrupted / "tables" / "pruning_by_subject.csv").is_file()
    assert before == (done.stat().st_mtime_ns, (interrupted / "checkpoints" / "best.ckpt").read_bytes())
