"""fit: what a run leaves behind, its folder, and what is refused before it begins."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import train
from sightline.export.reading import load_exported
from sightline.run.folder import VARIABLE
from tests.commands.calling import error_of


def test_a_run_leaves_everything_behind(finished_run: Path):
    expected = {
        "config.yaml", "splits.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "relevance/train/heads.parquet",
        "relevance/train/layers.parquet", "relevance/train/manifest.json", "tables/pruning.csv", "tables/pruning.md",
        "tables/curves.csv", "tables/split.csv", "tables/relevance_train_layers.csv",
        "tables/relevance_train_heads_by_class.csv", "tables/relevance_train_heads_by_group.csv",
        "tables/stability_train_heads.csv", "tables/cut_gaps_train_layers.csv", "provenance.json", "report.html",
        "figures/relevance_train_layers_r.png", "figures/relevance_train_heads_r.svg",
        "figures/accuracy_against_depth.png", "figures/accuracy_against_cost.png",
        "pruned/relevance-r-highest-k3/model.safetensors", "pruned/relevance-r-lowest-k1/model.ckpt",
    }  # fmt: skip
    found = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    assert expected <= found
    assert not [name for name in found if "partial" in name or "parts" in name]


def test_scores_are_of_the_best_weights_on_every_training_clip(finished_run: Path):
    splits = pd.read_csv(finished_run / "splits.csv")
    heads = pd.read_parquet(finished_run / "relevance/train/heads.parquet")
    layers = pd.read_parquet(finished_run / "relevance/train/layers.parquet")
    clips = splits.loc[splits["split"] == "train", "sample_id"]
    assert heads["sample_id"].drop_duplicates().tolist() == clips.tolist()
    assert len(heads) == len(clips) * (2 * 2 + 2 * 4)
    assert len(layers) == len(clips) * 4
    manifest = json.loads((finished_run / "relevance/train/manifest.json").read_text())["tables"]["layers"]
    assert manifest["checkpoint"] == str(finished_run / "checkpoints/best.ckpt")
    assert manifest["class_names"] == ["steering", "texting-on-phone"]
    assert manifest["noise_floor"] < 1e-5


def test_the_table_tells_of_every_model(finished_run: Path):
    table = pd.read_csv(finished_run / "tables/pruning.csv")
    assert table["mode"].tolist() == ["none", "lowest", "lowest", "highest", "highest"]
    assert table["k"].tolist() == [0, 1, 3, 1, 3]
    full = table.iloc[0]
    assert (table["params"][1:] < full["params"]).all()
    assert (table["macs"][1:] < full["macs"]).all()
    assert table["clips_per_s"].gt(0).all()
    layers = pd.read_parquet(finished_run / "relevance/train/layers.parquet").groupby("layer")["r"].mean()
    assert table.loc[1, "removed_layers"] == layers.idxmin() or str(table.loc[1, "removed_layers"]) == str(
        layers.idxmin()
    )
    assert str(table.loc[3, "removed_layers"]) == str(layers.idxmax())
    for plan in table["plan_id"]:
        predictions = pd.read_csv(finished_run / "tables/predictions" / f"{plan}.csv")
        top1 = 100 * (predictions["label"] == predictions["predicted"]).mean()
        assert top1 == pytest.approx(table.set_index("plan_id").loc[plan, "top1"])


def test_the_table_is_also_there_by_class_and_subject(finished_run: Path):
    table = pd.read_csv(finished_run / "tables/pruning.csv").set_index("plan_id")
    for key, column in (("class", "class"), ("subject", "group")):
        parts = pd.read_csv(finished_run / f"tables/pruning_by_{key}.csv")
        for plan, own in parts.groupby("plan_id"):
            assert (own["clips"] * own["top1"]).sum() / own["clips"].sum() == pytest.approx(table.loc[plan, "top1"])
        assert parts.groupby("plan_id")[column].nunique().gt(0).all()
        assert set(parts["plan_id"]) == set(table.index)


def test_a_second_run_gets_a_numbered_folder(tiny_config: Path, tmp_path: Path, monkeypatch):
    quick = ["--config", str(tiny_config), "--run", str(tmp_path / "r"), "--trainer.callbacks", "null",
             "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]  # fmt: skip
    for name in ("r", "r-2"):
        monkeypatch.delenv(VARIABLE, raising=False)
        train.main(["fit", *quick])
        assert (tmp_path / name / "checkpoints/best.ckpt").exists()
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "r" / "mark").touch()
    train.main(["fit", *quick, "--replace_run", "true"])
    assert not (tmp_path / "r" / "mark").exists()
    assert not (tmp_path / "r-3").exists()
    saved = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    assert saved["run"] == str(tmp_path / "r")
    assert saved["replace_run"] is False


def test_a_folder_that_is_no_run_is_not_replaced(tiny_config, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    arguments = ["fit", "--config", str(tiny_config), "--run", str(tmp_path / "photos"), "--replace_run", "true"]
    assert "is not a run's folder" in error_of(capsys, *arguments)
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_failing_analysis_keeps_the_training_and_names_the_command(tiny_config, tmp_path, monkeypatch):
    from callbacks import HeadAblation

    def fail(self, context):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(HeadAblation, "analyse", fail)
    with pytest.raises(RuntimeError, match=r"the disk is full(.|\n)*python train.py ablate --run"):
        train.main(["fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"), "--trainer.max_epochs", "1"])
    assert (tmp_path / "r/checkpoints/best.ckpt").exists()
    monkeypatch.undo()
    monkeypatch.delenv(VARIABLE, raising=False)
    train.main(["ablate", "--run", str(tmp_path / "r")])
    assert (tmp_path / "r/relevance/train/heads.parquet").exists()


def test_an_unknown_program_is_said_before_the_training(tiny_config, tmp_path, capsys):
    run = ["--run", str(tmp_path / "none")]
    told = error_of(
        capsys, "fit", "--config", str(tiny_config), *run, "--trainer.callbacks", "callbacks.PrunedCheckpoints",
        "--trainer.callbacks.programs", "[tflite]",
    )  # fmt: skip
    assert "tflite" in told
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.learning_rat", "1"], "learning_rat"),
        (["--model.init_args.learning_rate", "fast"], "fast"),
        (["--data", "datamodules.Nothing"], "Nothing"),
        (["--trainer.epochs", "3"], "epochs"),
        (["--model.init_args.backbone", "resnet"], "Unknown backbone 'resnet'"),
        (["--model.init_args.options", "{depht: [1]}"], "no option 'depht'"),
    ],
)
def test_wrong_options_are_refused(tiny_config, tmp_path, capsys, arguments, message):
    run = ["--run", str(tmp_path / "none")]
    assert message in error_of(capsys, "fit", "--config", str(tiny_config), *run, *arguments)
    assert not (tmp_path / "none").exists()


def test_hostile_weights_are_refused_in_one_line(tiny_config, tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    torch.save({"x": Hostile()}, tmp_path / "hostile.pth")
    arguments = ["--config", str(tiny_config), "--run", str(tmp_path / "r")]
    told = error_of(capsys, "fit", *arguments, "--model.init_args.weights", str(tmp_path / "hostile.pth"))
    assert "more than tensors" in told
    assert not (tmp_path / "was-run").exists()


def test_a_quick_check_leaves_nothing_behind(tiny_config, tmp_path):
    train.main(["fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"), "--trainer.fast_dev_run", "true",
                "--data.init_args.frames", "6"])  # fmt: skip
    assert [str(path) for path in (tmp_path / "r").rglob("*") if path.is_file()] == []


def test_a_depth_that_cannot_be_cut_is_said_before_the_training(tiny_config, tmp_path, capsys):
    config = yaml.safe_load(tiny_config.read_text())
    config["trainer"]["callbacks"][-1]["init_args"]["depths"] = [1, 5]
    tiny_config.write_text(yaml.safe_dump(config))
    told = error_of(capsys, "fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"))
    assert "Cannot remove 5 layers: 4 of 4" in told
    assert not (tmp_path / "r").exists()


def test_a_run_resumes_in_its_folder(tiny_config, tmp_path):
    arguments = ["fit", "--config", str(tiny_config), "--trainer.callbacks", "null"]
    train.main([*arguments, "--run", str(tmp_path / "r"), "--trainer.max_epochs", "1"])
    last = tmp_path / "r" / "checkpoints" / "last.ckpt"
    curves = tmp_path / "r" / "tables" / "curves.csv"
    first = pd.read_csv(curves)
    train.main([*arguments, "--ckpt_path", str(last), "--trainer.max_epochs", "2"])
    both = pd.read_csv(curves)
    assert both["epoch"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(both[:1][first.columns], first)
    assert both[["train/loss", "val/top1"]].notna().all(axis=None)
    assert torch.load(last, weights_only=True)["global_step"] == 12  # six batches, twice
    assert not (tmp_path / "r-2").exists()


def test_a_pruned_model_is_recovered(finished_run: Path, tiny_config: Path, tmp_path: Path, monkeypatch, capsys):
    config = yaml.safe_load(tiny_config.read_text())
    student = finished_run / "pruned/relevance-r-lowest-k3"
    config["model"] = {
        "class_path": "lightning_modules.RecoveringClassifier",
        "init_args": {
            "student": str(student), "teacher": str(finished_run / "checkpoints/best.ckpt"),
            "optimizer": "adamw", "learning_rate": 0.001,
        },
    }  # fmt: skip
    config["trainer"] |= {"max_epochs": 1, "callbacks": [{"class_path": "callbacks.RecoveredModel"}]}
    path = tmp_path / "recovery.yaml"
    path.write_text(yaml.safe_dump(config))
    run = tmp_path / "recovered"
    train.main(["fit", "--config", str(path), "--run", str(run)])
    table = pd.read_csv(run / "tables/recovery.csv").set_index("model")
    before = pd.read_csv(finished_run / "tables/pruning.csv").set_index("plan_id")
    assert table.loc["full", "top1"] == before.loc["relevance-r-none-k0", "top1"]
    assert table.loc["pruned", "top1"] == before.loc["relevance-r-lowest-k3", "top1"]
    assert table.loc["recovered", "params"] == table.loc["pruned", "params"] < table.loc["full", "params"]
    old, new = (load_exported(path).backbone for path in (student, run / "pruned/relevance-r-lowest-k3"))
    assert old.layers == new.layers
    assert any(not torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    assert not any(
        "teacher" in key for key in torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    )
    train.main(["test", "--run", str(run)])
    assert (run / "tables/test.csv").is_file()
    # Another division of the subjects would test the student on clips that its teacher was trained on.
    monkeypatch.delenv(VARIABLE, raising=False)
    other = ["fit", "--config", str(path), "--run", str(tmp_path / "other"), "--data.init_args.seed", "5"]
    assert re.search(
        r"\d+ clips that .*runs\d+/run was trained on would now validate or test", error_of(capsys, *other)
    )
    assert not (tmp_path / "other").exists()
