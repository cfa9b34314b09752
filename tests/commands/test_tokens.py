"""tokens on a finished run."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

import train
from tests.commands.calling import error_of


def test_methods_and_shares_are_given_on_the_command_line(own_run: Path, capsys):
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    setup = {"draws": 2, "kept": [0.1], "latency_repeats": 1, "latency_batch": 2}
    config["trainer"]["callbacks"].append({"class_path": "callbacks.TokenComparison", "init_args": setup})
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    methods = "[random,random:layer=0,{name: random, options: {layer: 2}}]"
    train.main(["tokens", "--run", str(own_run), "--methods", methods, "--kept", "[0.8]"])
    table = pd.read_csv(own_run / "tables/tokens.csv", keep_default_na=False)
    assert table[["method", "options", "seed"]].to_numpy().tolist() == [
        ["all", "", ""],
        *[["random", options, seed] for options in ("", "layer=0", "layer=2") for seed in ("0", "1")],
    ]
    pruning = pd.read_csv(own_run / "tables/pruning.csv").set_index("mode")
    assert float(table.loc[0, "top1"]) == pruning.loc["none", "top1"]
    assert table["clips_per_s"].ne("").all()
    assert "Fewer tokens" in (own_run / "report.html").read_text()
    assert {"tokens.png", "tokens.svg"} <= {path.name for path in (own_run / "figures").iterdir()}
    told = capsys.readouterr().out
    assert f"Table:  {own_run / 'tables/tokens.csv'}" in told
    assert "Report: " in told


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ("[rendom]", "Unknown token reduction 'rendom'; known are random"),
        ("[{name: random, options: {layer: 7}}]", "has layers 0 to 3; tokens cannot be dropped after layer 7"),
        ("[sta:schedule=2,1]", "Commas within an option need quotes there"),
        ("['sta:schedule=2,1,1,1']", "The schedule 2,1,1,1 is for 4 places; "),
        ("[random:layer=x]", "Option random.layer must be of type int, got 'x'"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(finished_run, capsys, methods, told):
    assert told in error_of(capsys, "tokens", "--run", str(finished_run), "--methods", methods)
    assert not (finished_run / "tables/tokens.csv").exists()
