"""test and predict on a run's own data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from tests.commands.calling import error_of


def test_a_pruned_checkpoint_can_be_tested(own_run: Path):
    checkpoint = own_run / "pruned/relevance-r-lowest-k3/model.ckpt"
    train.main(["test", "--run", str(own_run), "--ckpt_path", str(checkpoint)])
    tested = pd.read_csv(own_run / "tables/test-relevance-r-lowest-k3.csv").set_index("metric")["value"]
    table = pd.read_csv(own_run / "tables/pruning.csv").set_index("plan_id")
    assert 100 * tested["test/top1"] == pytest.approx(table.loc["relevance-r-lowest-k3", "top1"], abs=1e-3)
    assert (own_run / "figures/confusion-relevance-r-lowest-k3.png").exists()
    counts = pd.read_csv(own_run / "tables/confusion-relevance-r-lowest-k3.csv", index_col="true")
    assert counts.index.tolist() == counts.columns.tolist() == ["steering", "texting-on-phone"]
    assert 100 * np.trace(counts) / counts.to_numpy().sum() == pytest.approx(100 * tested["test/top1"])
    commands = [entry["command"] for entry in json.loads((own_run / "provenance.json").read_text())["commands"]]
    assert "train.py fit --config" in commands[0]
    assert commands[-1].endswith(f"--ckpt_path {checkpoint}")


def test_any_checkpoint_can_be_tested_with_fewer_tokens(own_run: Path, caplog):
    def loss(name: str) -> float:
        return float(pd.read_csv(own_run / f"tables/{name}.csv").set_index("metric")["value"]["test/loss"])

    train.main(["test", "--run", str(own_run)])
    train.main(["test", "--run", str(own_run), "--tokens", "random", "--tokens.kept", "1"])
    assert "runs with all tokens; here it runs with random_kept1.0, as asked" in caplog.text
    # What keeps all is the same model; the files of the dense one stay.
    assert loss("test-random_kept1.0") == pytest.approx(loss("test"), abs=1e-5)
    before = (own_run / "tables/test.csv").read_bytes()
    train.main(["test", "--run", str(own_run), "--tokens", "random", "--tokens.kept=0.1"])
    assert abs(loss("test-random_kept0.1") - loss("test")) > 1e-4
    assert (own_run / "tables/test.csv").read_bytes() == before


def test_predict_writes_probabilities(own_run: Path):
    train.main(["predict", "--run", str(own_run)])
    predictions = pd.read_csv(own_run / "tables/predict.csv")
    assert set(predictions["predicted"]) <= {"steering", "texting-on-phone"}
    assert predictions["probability"].between(0.5, 1).all()
    assert len(predictions) == len(pd.read_csv(own_run / "splits.csv").query("split == 'test'"))


def test_commands_without_weights_are_refused(tiny_config, tmp_path, capsys):
    for command in ("test", "ablate"):
        assert "needs trained weights" in error_of(capsys, command, "--config", str(tiny_config))


def changed(run: Path, **hyper_parameters) -> dict:
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    content["hyper_parameters"] = {**content["hyper_parameters"], **hyper_parameters}
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 3, "class_names": ["a", "b", "c"]}, "tells 3 classes apart, but the data has 2"),
        ({"num_classes": 3, "class_names": None}, "tells 3 classes apart, but the data has 2"),
        ({"options": {"width": 32}}, "does not fit the video_swin_demo that it says it holds"),
        ({"options": {"depths": [10**9, 2]}}, "says that it holds a model that cannot be"),
        ({"options": {"width": 10**9}}, "width of video_swin_demo must be from 1 to 65536"),
        ({"removed_layers": [999, -1, "x"]}, "Expected numbers of layers, from 0"),
        ({"removed_heads": [[0, "attention", 99]]}, "to remove"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(own_run, tmp_path, capsys, change, message):
    torch.save(changed(own_run, **change), tmp_path / "other.ckpt")
    told = error_of(capsys, "test", "--run", str(own_run), "--ckpt_path", str(tmp_path / "other.ckpt"))
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("state_dict"), "holds no state dict"),
        (lambda content: content.update(state_dict=[1, 2]), "holds no state dict"),
        (lambda content: content.update(state_dict={}), "holds no state dict"),
        (
            lambda content: content["state_dict"].update({"backbone.head.bias": torch.zeros(2).to_sparse()}),
            "no state dict",
        ),
        (
            lambda content: content["state_dict"].update({"backbone.head.bias": torch.zeros(2, dtype=torch.int64)}),
            "1 of another kind of number (head.bias holds torch.int64)",
        ),
        (lambda content: content["state_dict"].pop("backbone.head.bias"), r"1 missing (head.bias)"),
        (lambda content: content["state_dict"].update({"backbone.x": torch.zeros(1)}), "1 not expected (x)"),
        (lambda content: content.update(record={"mean": 3}), "record of its normalisation is damaged"),
        (lambda content: content.pop("hyper_parameters"), "is not a checkpoint of a run"),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(own_run, tmp_path, capsys, damage, message):
    content = changed(own_run)
    damage(content)
    torch.save(content, tmp_path / "damaged.ckpt")
    assert message in error_of(capsys, "test", "--run", str(own_run), "--ckpt_path", str(tmp_path / "damaged.ckpt"))


def test_a_checkpoint_of_no_run_makes_no_folder(tiny_config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.ckpt")
    assert "not a checkpoint of a run" in error_of(
        capsys, "test", "--config", str(tiny_config), "--ckpt_path", str(tmp_path / "other.ckpt")
    )
    assert not (tmp_path / "runs").exists()
