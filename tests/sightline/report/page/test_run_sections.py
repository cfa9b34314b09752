"""Curves of a fit that was interrupted, and of one that logs several times per epoch."""

import pandas as pd
import pytest

from sightline.report.page.run_sections import training_section
from sightline.report.stored.curves import read_curves
from sightline.report.stored.run_results import RunResults
from tests.sightline.report.comparison.example_runs import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_an_epoch_has_one_row_numbered_from_one(run):
    path = run / "tables/metrics.csv"
    more = pd.DataFrame({"epoch": [0], "step": [2], "train/loss": [4.0]})
    pd.concat([pd.read_csv(path), more]).to_csv(path, index=False)
    curves = read_curves(RunResults(run))
    assert curves.index.tolist() == [1, 2, 3]
    assert curves["train/loss"].tolist() == [3.0, 1.25, 0.75]  # the first epoch logged 2 and 4


def test_a_resumed_fit_is_one_curve(run):
    tables = run / "tables"
    (tables / "metrics.csv").rename(tables / "metrics-part1.csv")
    rows = {"epoch": [2, 3], "step": [14, 19], "train/loss": [0.5, 0.25], "val/top1": [0.875, 0.75]}
    pd.DataFrame(rows).to_csv(tables / "metrics.csv", index=False)
    curves = read_curves(RunResults(run))
    assert curves["train/loss"].tolist() == [2.0, 1.25, 0.5, 0.25]
    assert "Best epoch: 3 of 4, with a validation top-1 of 87.5 %" in training_section(RunResults(run)).blocks[0].text


def test_what_is_best_is_what_the_checkpoint_monitors(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"{config}checkpoint: {{monitor: val/loss, mode: min}}\n")
    told = training_section(RunResults(run)).blocks[0].text
    assert "Best epoch: 2 of 3, with a val/loss of 1" in told
