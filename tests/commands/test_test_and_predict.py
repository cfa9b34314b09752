"""test and predict on a run's own data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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


def test_predict_writes_probabilities(own_run: Path):
    train.main(["predict", "--run", str(own_run)])
    predictions = pd.read_csv(own_run / "tables/predict.csv")
    assert set(predictions["predicted"]) <= {"steering", "texting-on-phone"}
    assert predictions["probability"].between(0.5, 1).all()
    assert len(predictions) == len(pd.read_csv(own_run / "splits.csv").query("split == 'test'"))


def test_commands_without_weights_are_refused(tiny_config, tmp_path, capsys):
    for command in ("test", "ablate"):
        assert "needs trained weights" in error_of(capsys, command, "--config", str(tiny_config))
