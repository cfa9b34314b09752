"""The command line, in process (starting it anew costs ten seconds each time)."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import train
from callbacks import SideBySideGallery, TransferGallery
from callbacks.galleries.transfer import class_mapping
from callbacks.run_trainer import Split
from lightning_modules import VideoClassifier
from sightline.backbones import build_backbone
from sightline.export import export_model, load_exported
from sightline.pruning import PruningPlan
from sightline.run.folder import VARIABLE
from tests.conftest import CABIN
from tests.sightline.video.video_files import write_video


@pytest.fixture(autouse=True)
def no_run_folder_from_another_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "")
    yield
    os.environ.pop(VARIABLE, None)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cabin_root: Path) -> Path:
    """The whole main job, run once."""
    from tests import conftest

    folder = tmp_path_factory.mktemp("runs")
    config = conftest.tiny_config.__wrapped__(cabin_root, folder)  # type: ignore[attr-defined]
    os.environ.pop(VARIABLE, None)
    report = ["--trainer.callbacks+=callbacks.Report"]
    train.main(["fit", "--config", str(config), "--run", str(folder / "run"), *report])
    os.environ.pop(VARIABLE, None)
    return folder / "run"


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        train.main(list(arguments))
    return str(stopped.value) + capsys.readouterr().err


def test_a_run_leaves_everything_behind(finished_run: Path):
    expected = {
        "config.yaml", "splits.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "relevance/train/heads.parquet",
        "relevance/train/layers.parquet", "relevance/train/manifest.json", "tables/pruning.csv", "tables/pruning.md",
        "tables/metrics.csv", "tables/split.csv", "tables/relevance_train_layers.csv",
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


def test_runs_are_compared(finished_run: Path, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["compare", "--runs", str(finished_run), "--out", str(tmp_path / "comparison")])
    assert ended.value.code == 0
    assert (tmp_path / "comparison/accuracy_against_cost.png").exists()
    assert "## Accuracy and cost" in capsys.readouterr().out
    told = error_of(capsys, "compare", "--runs", str(tmp_path / "none"), "--out", str(tmp_path / "x"))
    assert "no run with tested models" in told


def test_a_pruned_checkpoint_can_be_tested(finished_run: Path):
    checkpoint = finished_run / "pruned/relevance-r-lowest-k3/model.ckpt"
    train.main(["test", "--run", str(finished_run), "--ckpt_path", str(checkpoint)])
    tested = pd.read_csv(finished_run / "tables/test-relevance-r-lowest-k3.csv").set_index("metric")["value"]
    table = pd.read_csv(finished_run / "tables/pruning.csv").set_index("plan_id")
    assert 100 * tested["test/top1"] == pytest.approx(table.loc["relevance-r-lowest-k3", "top1"], abs=1e-3)
    assert (finished_run / "figures/confusion-relevance-r-lowest-k3.png").exists()
    counts = pd.read_csv(finished_run / "tables/confusion-relevance-r-lowest-k3.csv", index_col="true")
    assert counts.index.tolist() == counts.columns.tolist() == ["steering", "texting-on-phone"]
    assert 100 * np.trace(counts) / counts.to_numpy().sum() == pytest.approx(100 * tested["test/top1"])
    commands = [entry["command"] for entry in json.loads((finished_run / "provenance.json").read_text())["commands"]]
    assert "train.py fit --config" in commands[0]
    assert commands[-1].endswith(f"--ckpt_path {checkpoint}")


def test_ablate_and_prune_start_from_a_finished_run(finished_run: Path):
    before = (finished_run / "config.yaml").read_text()
    train.main(["ablate", "--run", str(finished_run), "--split", "test"])
    test_clips = pd.read_csv(finished_run / "splits.csv").query("split == 'test'")["sample_id"]
    scores = pd.read_parquet(finished_run / "relevance/test/layers.parquet")
    assert scores["sample_id"].drop_duplicates().tolist() == test_clips.tolist()
    old = pd.read_csv(finished_run / "tables/pruning.csv")
    (finished_run / "tables/pruning.csv").unlink()
    train.main(["prune", "--run", str(finished_run)])
    new = pd.read_csv(finished_run / "tables/pruning.csv")
    same = ["plan_id", "removed_layers", "top1", "params", "macs"]
    pd.testing.assert_frame_equal(new[same], old[same])
    assert (finished_run / "config.yaml").read_text() == before


def test_every_way_of_pruning_stands_in_one_table(finished_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (step,) = [step for step in config["trainer"]["callbacks"] if step["class_path"].endswith("PrunedCheckpoints")]
    step["init_args"] |= {
        "depths": [2], "modes": ["lowest"],
        "methods": ["relevance", "greedy", "random", "block_influence", "gradient", "last"],
        "random_seeds": [0, 1], "heads": [0.5], "heads_without_layers": [1], "latency_repeats": 1,
        "targets": {"max_gmacs": 1.0},
    }  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    train.main(["prune", "--run", str(run)])
    table = pd.read_csv(run / "tables/pruning.csv", dtype={"removed_heads": str}).set_index("plan_id")
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
    module = VideoClassifier.load_from_checkpoint(run / f"pruned/{beside}/model.ckpt", weights_only=True)
    assert len(module.backbone.units("heads")) < 12 - len(heads)  # the layer took its own along
    targets = pd.read_csv(run / "tables/targets.csv")
    assert targets["meets"].tolist() == [True]


def test_an_unpruned_export_serves_the_depths_of_the_pruned_ones(finished_run: Path, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    asked = []

    def without_programs(*args, programs, **kwargs):
        asked.append(programs)  # that they are written is tested with the export
        return export_model(*args, **kwargs)

    monkeypatch.setattr("callbacks.pruned_checkpoints.export_model", without_programs)
    step = "--trainer.callbacks"
    train.main(["prune", "--run", str(run), step, "null", step, "callbacks.PrunedCheckpoints", f"{step}.depths", "[2]",
                f"{step}.modes", "[lowest]", f"{step}.latency_repeats", "0", f"{step}.export_full", "true",
                f"{step}.programs", "[torch_export]"])  # fmt: skip
    assert asked == [["torch_export"]] * 2
    video = str(write_video(tmp_path / "a.mp4", 30))
    printed = []
    for arguments in (["relevance-r-none-k0", "--depth", "2"], ["relevance-r-lowest-k2"], ["relevance-r-none-k0"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train.main(["predict", "--exported", str(run / "pruned" / arguments[0]), "--video", video, *arguments[1:]])
        assert not stopped.value.code
        printed.append(json.loads(capsys.readouterr().out)["classes"])
    assert printed[0] == printed[1] != printed[2]
    assert {entry["name"] for entry in printed[0]} == {"steering", "texting-on-phone"}


def test_an_unknown_program_is_said_before_the_training(tiny_config, tmp_path, capsys):
    run = ["--run", str(tmp_path / "none")]
    told = error_of(
        capsys, "fit", "--config", str(tiny_config), *run, "--trainer.callbacks", "callbacks.PrunedCheckpoints",
        "--trainer.callbacks.programs", "[tflite]",
    )  # fmt: skip
    assert "tflite" in told
    assert not (tmp_path / "none").exists()


def test_predict_writes_probabilities(finished_run: Path):
    train.main(["predict", "--run", str(finished_run)])
    predictions = pd.read_csv(finished_run / "tables/predict.csv")
    assert set(predictions["predicted"]) <= {"steering", "texting-on-phone"}
    assert predictions["probability"].between(0.5, 1).all()
    assert len(predictions) == len(pd.read_csv(finished_run / "splits.csv").query("split == 'test'"))


def test_preview_needs_no_run_and_leaves_none(tiny_config: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, folder in [([], Path()), (["--out", "there"], Path("there"))]:
        with pytest.raises(SystemExit) as stopped:
            train.main(["preview", "--config", str(tiny_config), "--clips", "2", *arguments])
        assert not stopped.value.code
        assert (folder / "preview_train.png").exists()
        assert (folder / "preview_test.png").exists()
        assert str(folder / "preview_test.png") in capsys.readouterr().out
    assert not Path("runs").exists()


def test_preview_of_a_run_goes_to_its_figures(finished_run: Path):
    with pytest.raises(SystemExit) as stopped:
        train.main(["preview", "--run", str(finished_run), "--clips", "2"])
    assert not stopped.value.code
    assert (finished_run / "figures" / "preview_train.png").exists()


def test_mistakes_in_preview_are_told_in_one_line(tiny_config: Path, capsys):
    assert "clips >= 1" in error_of(capsys, "preview", "--config", str(tiny_config), "--clips", "0")


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


def test_print_config_round_trips(tiny_config, tmp_path, capsys):
    def printed(config: Path) -> str:
        with pytest.raises(SystemExit):
            train.main(["fit", "--config", str(config), "--print_config"])
        return capsys.readouterr().out

    first = printed(tiny_config)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(tmp_path / "printed.yaml") == first


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


def test_a_depth_that_cannot_be_cut_is_refused(finished_run, capsys):
    arguments = ["prune", "--run", str(finished_run), "--trainer.callbacks", "null"]
    depth = ["--trainer.callbacks", "callbacks.PrunedCheckpoints", "--trainer.callbacks.depths", "[9]"]
    assert "Cannot remove 9 layers: 4 of 4" in error_of(capsys, *arguments, *depth)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "has no config.yaml" in error_of(capsys, "ablate", "--run", str(tmp_path))


def test_scores_of_other_weights_are_noticed(finished_run, tmp_path, capsys):
    content = torch.load(finished_run / "checkpoints/best.ckpt", weights_only=True)
    content["state_dict"]["backbone.head.bias"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    arguments = ["--run", str(finished_run), "--ckpt_path", str(tmp_path / "other.ckpt")]
    assert "another model" in error_of(capsys, "ablate", *arguments)
    assert "made with other weights" in error_of(capsys, "prune", *arguments)


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
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_commands_without_weights_are_refused(tiny_config, tmp_path, capsys):
    for command in ("test", "ablate"):
        assert "needs trained weights" in error_of(capsys, command, "--config", str(tiny_config))


def test_a_run_resumes_in_its_folder(tiny_config, tmp_path):
    arguments = ["fit", "--config", str(tiny_config), "--trainer.callbacks", "null"]
    train.main([*arguments, "--run", str(tmp_path / "r"), "--trainer.max_epochs", "1"])
    last = tmp_path / "r" / "checkpoints" / "last.ckpt"
    train.main([*arguments, "--ckpt_path", str(last), "--trainer.max_epochs", "2"])
    assert sorted(path.name for path in (tmp_path / "r" / "tables").glob("metrics*")) == [
        "metrics-part1.csv",
        "metrics.csv",
    ]
    assert torch.load(last, weights_only=True)["global_step"] == 12  # six batches, twice
    assert not (tmp_path / "r-2").exists()


def test_data_that_is_divided_otherwise_is_noticed(finished_run, capsys):
    told = error_of(capsys, "prune", "--run", str(finished_run), "--data.init_args.seed", "7")
    assert "is not what" in told
    assert "splits.csv" in told


def test_explain_draws_and_measures_what_heads_look_at(finished_run: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "relevance/test", ignore_errors=True)  # which another test may have scored
    train.main(["explain", "--run", str(run)])
    assert "Spearman" in capsys.readouterr().out
    table = pd.read_csv(run / "tables/pointing_test.csv")
    heads = pd.read_parquet(run / "relevance/train/heads.parquet")[["layer", "site", "head"]].drop_duplicates()
    shown = table[table["target"] == "head"]
    assert set(shown[["layer", "site", "head"]].itertuples(index=False, name=None)) == set(
        heads.itertuples(index=False, name=None)
    )
    assert shown["pointing"].between(0, 1).all()
    assert shown["pointing"].nunique() > 1
    captions = json.loads((run / "attention/index.json").read_text())
    files = {path.name for path in (run / "attention").iterdir()}
    assert files == {*captions, "index.json", "pointing_test.parquet"}
    assert len({name.rpartition("_")[0] for name in captions}) == 2  # a clip per class
    assert ": texting-on-phone, predicted " in list(captions.values())[-1]
    shutil.rmtree(run / "relevance")
    assert "Make it with: python train.py ablate --run" in error_of(capsys, "explain", "--run", str(run))


def export_demo(folder: Path, names: list[str]) -> Path:
    """Export the demo's Video Swin without three layers, untrained."""
    options = {"frames": 8, "size": 64}
    backbone = build_backbone("video_swin_demo", len(names), options).without((1, 2, 5))
    backbone.set_record(dataclasses.replace(backbone.record, class_names=tuple(names)))
    plan = PruningPlan("relevance", "r", "lowest", 3, (1, 2, 5))
    return export_model(
        backbone, folder, name="video_swin_demo", options=options, plan=plan, provenance={}, sampling={}
    )


def test_a_pruned_model_is_recovered(finished_run: Path, tiny_config: Path, tmp_path: Path):
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


@pytest.mark.parametrize("path", sorted((Path(train.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_parsed_and_its_classes_instantiated(path: Path, tmp_path, monkeypatch):
    text = path.read_text()
    assert text.startswith("#"), "a config opens with what it is for"
    assert f"python train.py fit --config configs/{path.name}" in text.split("\nseed_everything")[0]
    monkeypatch.chdir(tmp_path)

    class OnlyBuild(train.RunTrainer):
        def fit(self, model, datamodule=None, ckpt_path=None, train_dataloaders=None, val_dataloaders=None) -> None:
            built.append((model, datamodule, self))

    built: list = []
    monkeypatch.setattr(train, "RunTrainer", OnlyBuild)
    # The data sets themselves are not here: their class lists are.
    for data in ("UCF101", "DriverClips", "DriveAndAct"):
        monkeypatch.setattr(f"datamodules.{data}.class_names", [f"class{i}" for i in range(12)], raising=False)
        monkeypatch.setattr(f"datamodules.{data}.num_classes", 12, raising=False)
    more = []
    if path.stem == "recovery":  # which starts from what a run left
        names = yaml.safe_load(text)["data"]["init_args"]["actions"]
        more = ["--model.student", str(export_demo(tmp_path / "student", names))]
    train.main(["fit", "--config", str(path), "--wandb.mode", "disabled", "--trainer.accelerator", "cpu",
                "--trainer.devices", "1", *more])  # fmt: skip
    model, data, _ = built[0]
    assert model.backbone.input_spec.frames == data.frames
    assert model.hparams["num_classes"] == data.num_classes


@pytest.mark.parametrize(
    "path", sorted((Path(train.__file__).parent / "configs/transfer").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_transfer_is_parsed_and_maps_classes_that_exist(path: Path, finished_run: Path, monkeypatch):
    assert f"python train.py explain --run <run> --config configs/transfer/{path.name}" in path.read_text()
    built: list = []

    class OnlyBuild(train.RunTrainer):
        def explain(self, model, datamodule, ckpt_path=None, split: Split = "test") -> None:
            built.extend(step for step in self.callbacks if isinstance(step, TransferGallery))

    monkeypatch.setattr(train, "RunTrainer", OnlyBuild)
    train.main(["explain", "--run", str(finished_run), "--config", str(path)])
    [transfer] = built
    assert (transfer.data.frames, transfer.data.size) == (16, 224)
    names = transfer.data._class_names()
    mapped = class_mapping(transfer.classes, list(transfer.classes), names)
    assert {names[label] for label in mapped} == {
        "interacting_with_phone", "working_on_laptop", "eating", "drinking", "opening_backpack", "closing_backpack"
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted((Path(train.__file__).parent / "configs/side_by_side").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_side_by_side_is_parsed(path: Path, finished_run: Path, monkeypatch):
    assert f"python train.py explain --run <run> --config configs/side_by_side/{path.name}" in path.read_text()
    built: list = []

    class OnlyBuild(train.RunTrainer):
        def explain(self, model, datamodule, ckpt_path=None, split: Split = "test") -> None:
            built.extend(step for step in self.callbacks if isinstance(step, SideBySideGallery))

    monkeypatch.setattr(train, "RunTrainer", OnlyBuild)
    other = ["--trainer.callbacks.other", str(finished_run)]
    train.main(["explain", "--run", str(finished_run), "--config", str(path), *other])
    [gallery] = built
    assert (gallery.other, gallery.classes) == (str(finished_run), ["PlayingViolin"])


def test_a_model_is_shown_on_other_data(finished_run: Path, tmp_path: Path, cabin_root: Path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    data = {"class_path": "datamodules.SyntheticCabin", "init_args": {"root": str(cabin_root), **CABIN}}
    step = {"class_path": "callbacks.TransferGallery", "init_args": {
        "data": data, "classes": {"steering": ["steering"]}, "clips_per_class": 1,
    }}  # fmt: skip
    path = tmp_path / "transfer.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [step]}}))
    arguments = ["explain", "--run", str(run), "--config", str(path)]
    train.main(arguments)
    assert len(pd.read_csv(run / "tables/transfer.csv")) == 1
    step["init_args"]["classes"] = {"sleeping": "steering"}
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [step]}}))
    assert "'sleeping', which is no class of the model's: steering, texting-on-phone" in error_of(capsys, *arguments)


def test_ablate_can_race(finished_run: Path, tmp_path: Path, capsys):
    """On a copy, because another sampling replaces the table."""
    run = tmp_path / "raced"
    shutil.copytree(finished_run, run)
    again = ["ablate", "--run", str(run), "--sampling", "racing", "--race.ks", "[1,2]", "--race.min_samples", "30"]
    assert "another sampling" in error_of(capsys, *again)
    train.main([*again, "--overwrite", "true"])
    entry = json.loads((run / "relevance/train/manifest.json").read_text())["tables"]["layers"]
    assert {(members["mode"], members["k"]) for members in entry["race"]["sets"]} == {
        ("lowest", 1), ("lowest", 2), ("highest", 1), ("highest", 2)
    }  # fmt: skip
    assert "racing for lowest and highest 1 2 by r" in entry["sampling"]
    # The run prunes at depths that the race did not decide.
    assert "The race decided the sets" in error_of(capsys, "prune", "--run", str(run))


def test_heads_can_be_screened_by_gradient(finished_run: Path, capsys):
    callbacks = "[{class_path: callbacks.GradientScreening, init_args: {exact_samples: 5}}]"
    train.main(["ablate", "--run", str(finished_run), "--trainer.callbacks", callbacks])
    assert "on 5 clips" in capsys.readouterr().out
    screened = pd.read_csv(finished_run / "tables/screening_train.csv")
    exact = pd.read_csv(finished_run / "tables/relevance_train_heads.csv")
    assert len(screened) == len(exact)
    assert screened["mean"].is_monotonic_increasing
    assert (screened["exact_samples"] == 5).all()
    assert not list((finished_run / "tables").glob(".screening*"))
