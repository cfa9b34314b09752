"""Resuming and recovering what an older version trained; its other families and configurations."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

import train
from sightline.report.stored.curves import read_curves
from sightline.report.stored.run_results import RunResults
from tests.older_runs.fixture import (
    FAMILIES,
    FULL,
    OLD,
    assert_pruning,
    assert_scored,
    assert_still,
    assert_tested,
    assert_videos,
    forget,
    run,
)


def test_training_goes_on_where_it_was():
    old = (OLD / "run/tables/metrics.csv").read_bytes()
    run("fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt --trainer.callbacks null "
        "--trainer.max_epochs 17")  # fmt: skip
    assert Path("run/tables/metrics.csv").read_bytes() == old
    curves = read_curves(RunResults(Path("run")))  # of both files: in the older one epochs count from 0
    assert curves is not None
    assert curves.index.tolist() == list(range(1, 18))
    # The same steps on the same clips with the optimiser's old state; losses of one epoch, each step of which rounds.
    then, now = (pd.read_csv(path).sort_values("train/loss") for path in (OLD / "expected/resumed.csv",
                                                                          "run/tables/curves.csv"))  # fmt: skip
    assert set(then["epoch"] + 1) == set(now["epoch"]) == {17}
    assert set(now["step"]) == set(then["step"])
    for name in ("train/loss", "val/loss"):
        assert now[name].dropna().tolist() == pytest.approx(then[name].dropna().tolist(), abs=1e-4)
    # The best weights are of an earlier epoch, which this one does not reach.
    assert Path("run/checkpoints/best.ckpt").read_bytes() == (OLD / "run/checkpoints/best.ckpt").read_bytes()
    assert Path("run/checkpoints/last.ckpt").read_bytes() != (OLD / "run/checkpoints/last.ckpt").read_bytes()
    assert not Path("run-2").exists()


def test_what_follows_a_finished_training_runs_again():
    """With all callbacks of the old configuration; the training itself has ended."""
    forget("run/tables/pruning.csv", "run/relevance/train/heads.parquet")
    run("fit --config run/config.yaml --ckpt_path run/checkpoints/last.ckpt")
    assert_scored("run/relevance/train")
    assert_pruning()
    assert Path("run/report.html").is_file()
    assert Path("run/checkpoints/best.ckpt").read_bytes() == (OLD / "run/checkpoints/best.ckpt").read_bytes()


def test_a_recovered_run_is_tested_and_exported_as_it_was():
    forget("recovered/tables/test.csv", "recovered/tables/confusion.csv", "recovered/tables/recovery.csv")
    run("test --run recovered")
    assert_tested("recovered")
    run("prune --run recovered")
    assert_still("recovered/tables/recovery.csv", ["model"])
    assert_still("recovered/tables/predictions/recovered.csv", ["sample_id"])


def test_old_exports_are_recovered():
    """The student, the teacher and the configuration are old; the training is new."""
    run("fit --config recovery.yaml --run new --trainer.max_epochs 1")
    table = pd.read_csv("new/tables/recovery.csv").set_index("model")
    old = pd.read_csv(OLD / "recovered/tables/recovery.csv").set_index("model")
    both = ["full", "pruned"]
    pd.testing.assert_frame_equal(table.loc[both, old.columns], old.loc[both], check_dtype=False)
    assert table.loc["recovered", "params"] == table.loc["pruned", "params"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_families_give_the_same(family: str):
    folder = f"families/{family}"
    full, beside = f"{folder}/pruned/{FULL}", f"{folder}/pruned/layers1_heads-r-lowest-k2"
    assert_videos([full, beside])
    for export in (full, beside):
        suffix = f"-{Path(export).name}"
        forget(f"{folder}/tables/test{suffix}.csv", f"{folder}/tables/confusion{suffix}.csv")
        run(f"test --run {folder} --ckpt_path {export}/model.ckpt")
        assert_tested(folder, suffix)
    checkpoint = f"{OLD / full}/model.ckpt"
    run(f"ablate --run {folder} --ckpt_path {checkpoint}")  # accepted, and so kept
    for kind in ("heads", "layers"):
        path = Path(folder, "relevance/train", f"{kind}.parquet")
        assert path.read_bytes() == (OLD / path).read_bytes()
    forget(f"{folder}/relevance/train/heads.parquet", f"{folder}/relevance/train/layers.parquet",
           f"{folder}/tables/pruning.csv", f"{folder}/pruned")  # fmt: skip
    run(f"ablate --run {folder} --ckpt_path {checkpoint}")
    assert_scored(f"{folder}/relevance/train")
    run(f"prune --run {folder} --ckpt_path {checkpoint}")
    assert_pruning(folder)


@pytest.mark.parametrize("folder", ["run", "recovered", *(f"families/{family}" for family in FAMILIES)])
def test_old_configurations_are_still_whole(folder: str, capsys):
    """Every setting that a run's configuration names is known, and keeps its value."""
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", "--config", f"{folder}/config.yaml", "--print_config"])
    assert not ended.value.code
    now, then = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(Path(folder, "config.yaml").read_text())

    def kept(old: object, new: object) -> bool:
        if isinstance(old, dict) and isinstance(new, dict):
            return all(key in new and kept(value, new[key]) for key, value in old.items())
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and all(map(kept, old, new))
        return old == new

    assert kept(then, now)
