"""After a command the page is as new as the results, and the verdict is told."""

from pathlib import Path

import pandas as pd
import pytest

from callbacks import Report
from callbacks.commands.conclusion import conclude
from tests.sightline.report.comparison.example_runs import make_run


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


@pytest.mark.parametrize("command", ["test", "ablate", "prune", "tokens", "attribute", "explain"])
def test_a_page_that_is_there_is_written_anew(run, capsys, command):
    conclude(command, run, [])
    assert not (run / "report.html").exists()  # nobody asked for one
    (run / "report.html").write_text("old")
    conclude(command, run, [])
    assert "All 3 layers" in (run / "report.html").read_text()
    told = capsys.readouterr().out
    assert f"Report: {run / 'report.html'} written anew" in told
    assert told.count("Verdict: ") == (2 if command in ("prune", "tokens") else 0)


def test_the_page_is_as_large_as_the_configuration_says(run):
    (run / "report.html").write_text("old")
    conclude("explain", run, [Report(embed_mb=0)])
    assert "3 of 3 files are linked" in (run / "report.html").read_text()


def test_a_fit_ends_with_the_verdict(run, capsys):
    conclude("fit", run, [])
    assert "Verdict: Nothing can be cut" in capsys.readouterr().out
    assert not (run / "report.html").exists()


def test_a_page_that_cannot_be_made_is_no_reason_to_fail(run, capsys):
    (run / "report.html").write_text("old")
    path = run / "tables" / "stability_train_layers.csv"
    pd.read_csv(path).drop(columns="same_set").to_csv(path, index=False)
    conclude("prune", run, [])
    told = capsys.readouterr().out
    assert "There is no new report and no verdict" in told
    assert f"python train.py report --run {run}" in told
    assert (run / "report.html").read_text() == "old"
