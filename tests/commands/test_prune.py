"""prune on a finished run."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

import train
from lightning_modules import VideoClassifier
from sightline.export.writing import export_model
from tests.commands.calling import code_of, error_of
from tests.sightline.video.video_files import write_video


def test_every_way_of_pruning_stands_in_one_table(own_run: Path):
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    (step,) = [step for step in config["trainer"]["callbacks"] if step["class_path"].endswith("PrunedCheckpoints")]
    step["init_args"] |= {
        "depths": [2], "modes": ["lowest"],
        "methods": ["relevance", "greedy", "random", "block_influence", "gradient", "last"],
        "random_seeds": [0, 1], "heads": [0.5], "heads_without_layers": [1], "latency_repeats": 1,
        "targets": {"max_gmacs": 1.0},
    }  # fmt: skip
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    train.main(["prune", "--run", str(own_run)])
    table = pd.read_csv(own_run / "tables/pruning.csv", dtype={"removed_heads": str}).set_index("plan_id")
    ways = {
        "relevance-r-none-k0", "relevance-r-lowest-k1", "relevance-r-lowest-k2", "greedy-r-lowest-k2",
        "random-draw-lowest-k2-seed0", "random-draw-lowest-k2-seed1",
        "block_influence-cosine-lowest-k2", "gradient-taylor-lowest-k2", "last-from_end-lowest-k2",
        "heads-r-lowest-k6", "relevance-r-highest-k1",
    }  # fmt: skip
    assert ways <= set(table.index)  # those of depth 1 from the fit among them
    assert table.loc["last-from_end-lowest-k2", "removed_layers"] == "2 3"
    assert table["clips_per_s"].notna().all()
    (beside,) = [plan for plan in table.index if plan.startswith("layers1_heads-r-lowest")]
    heads = table.loc[beside, "removed_heads"].split()
    assert len(heads) + 1 == table.loc[beside, "k"]
    assert table.loc[beside, "params"] < table.loc["relevance-r-lowest-k1", "params"]
    assert table.loc["heads-r-lowest-k6", "macs"] < table.loc["relevance-r-none-k0", "macs"]
    module = VideoClassifier.load_from_checkpoint(own_run / f"pruned/{beside}/model.ckpt", weights_only=True)
    assert len(module.backbone.units("heads")) < 12 - len(heads)  # the layer took its own along
    targets = pd.read_csv(own_run / "tables/targets.csv")
    assert targets["meets"].tolist() == [True]


def test_an_unpruned_export_serves_the_depths_of_the_pruned_ones(own_run: Path, tmp_path, monkeypatch, capsys):
    asked = []

    def without_programs(*args, programs, **kwargs):
        asked.append(programs)  # that they are written is tested with the export
        return export_model(*args, **kwargs)

    monkeypatch.setattr("callbacks.pruned_checkpoints.export_model", without_programs)
    step = "--trainer.callbacks"
    options = {"depths": "[2]", "modes": "[lowest]", "latency_repeats": "0", "export_full": "true",
               "programs": "[torch_export]"}  # fmt: skip
    given = [word for name, value in options.items() for word in (f"{step}.{name}", value)]
    train.main(["prune", "--run", str(own_run), step, "null", step, "callbacks.PrunedCheckpoints", *given])
    assert asked == [["torch_export"]] * 2
    video = str(write_video(tmp_path / "a.mp4", 30))
    printed = []
    for arguments in (["relevance-r-none-k0", "--depth", "2"], ["relevance-r-lowest-k2"], ["relevance-r-none-k0"]):
        capsys.readouterr()
        exported = str(own_run / "pruned" / arguments[0])
        assert code_of("predict", "--exported", exported, "--video", video, *arguments[1:]) == 0
        printed.append(json.loads(capsys.readouterr().out)["classes"])
    assert printed[0] == printed[1] != printed[2]
    assert {entry["name"] for entry in printed[0]} == {"steering", "texting-on-phone"}


def test_a_depth_that_cannot_be_cut_is_refused(own_run, capsys):
    arguments = ["prune", "--run", str(own_run), "--trainer.callbacks", "null"]
    depth = ["--trainer.callbacks", "callbacks.PrunedCheckpoints", "--trainer.callbacks.depths", "[9]"]
    assert "Cannot remove 9 layers: 4 of 4" in error_of(capsys, *arguments, *depth)


def test_targets_that_nothing_meets_end_with_a_new_report_and_the_verdict(own_run, capsys):
    page = own_run / "report.html"
    page.write_text("old")
    step = "[{class_path: callbacks.PrunedCheckpoints, init_args: {targets: {max_gmacs: 1.0e-9}, latency_repeats: 0}}]"
    with pytest.raises(SystemExit, match=r"No depth meets the targets \(max_gmacs 1e-09: the nearest is relevance-"):
        train.main(["prune", "--run", str(own_run), "--trainer.callbacks", step])
    told = capsys.readouterr().out
    assert f"Report: {page} written anew" in told
    assert "Verdict: " in told
    assert "Search for the targets: not met" in page.read_text()


def test_data_that_is_divided_otherwise_is_noticed(own_run, capsys):
    told = error_of(capsys, "prune", "--run", str(own_run), "--data.init_args.seed", "7")
    assert "is not what" in told
    assert "splits.csv" in told


def test_tokens_can_be_given_on_the_command_line(own_run: Path):
    """The command that docs/commands.md names: in the place of the run's callbacks, so that it prunes once."""
    callback = "[{class_path: callbacks.PrunedCheckpoints, init_args: {depths: [], tokens: [{name: random, "
    callback += "options: {kept: 0.6}}], latency_repeats: 0}}]"
    before = len(pd.read_csv(own_run / "tables/pruning.csv"))
    train.main(["prune", "--run", str(own_run), "--trainer.callbacks", callback])
    table = pd.read_csv(own_run / "tables/pruning.csv")
    assert len(table) == before + 1
    assert table["tokens"].dropna().tolist() == ["random_kept0.6"]
