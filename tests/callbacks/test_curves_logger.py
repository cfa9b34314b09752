"""Curves are on disk whatever loggers a run has, and a resumed fit continues them."""

from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

import train
from callbacks.curves_logger import CurvesLogger
from callbacks.logging_results import MOST_ROWS, log_results
from sightline.run.csv_table import read_rows

QUICK = ["--trainer.callbacks", "null", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2"]


def log(logger: CurvesLogger, epoch: int, **metrics: float):
    logger.log_metrics({"epoch": epoch, **metrics}, step=10 * epoch - 1)
    logger.save()


def test_one_row_per_epoch(tmp_path):
    logger = CurvesLogger(tmp_path / "tables" / "curves.csv")
    log(logger, 1, val=0.5)
    log(logger, 1, train=0.25)
    logger.log_metrics({"epoch": 2}, step=19)  # nothing to say of it
    logger.save()
    log(logger, 2, train=0.75)
    assert (tmp_path / "tables" / "curves.csv").read_text() == "epoch,step,val,train\n1,9,0.5,0.25\n2,19,,0.75\n"


def test_a_resumed_fit_continues_after_the_epochs_of_its_checkpoint(tmp_path):
    first = CurvesLogger(tmp_path / "curves.csv")
    for epoch in (1, 2, 3):
        log(first, epoch, loss=epoch / 10)
    again = CurvesLogger(tmp_path / "curves.csv", epochs=2)  # the third was cut short, and is trained again
    log(again, 3, loss=0.7, lr=1.0)
    log(again, 4, loss=0.9)
    assert [(row["epoch"], row["loss"], row["lr"]) for row in read_rows(tmp_path / "curves.csv")] == [
        ("1", "0.1", ""), ("2", "0.2", ""), ("3", "0.7", "1.0"), ("4", "0.9", ""),
    ]  # fmt: skip


def test_a_new_fit_begins_anew(tmp_path):
    log(CurvesLogger(tmp_path / "curves.csv"), 5, loss=0.1)
    log(CurvesLogger(tmp_path / "curves.csv"), 1, loss=0.2)
    assert [row["epoch"] for row in read_rows(tmp_path / "curves.csv")] == ["1"]


class Writer:
    """TensorBoard's writer, as far as results go."""

    def __init__(self):
        self.taken: list[tuple] = []

    def add_figure(self, name, figure, close=True):
        self.taken.append(("figure", name, close))

    def add_text(self, name, text):
        self.taken.append(("text", name, text))

    def add_scalar(self, name, value):
        self.taken.append(("scalar", name, value))


class Other(Logger):
    """A logger of another library."""

    def __init__(self, experiment):
        super().__init__()
        self._experiment = experiment
        self.metrics: list[dict] = []

    experiment = property(lambda self: self._experiment)
    name = property(lambda self: "other")
    version = property(lambda self: 0)

    def log_metrics(self, metrics, step=None):
        self.metrics.append(dict(metrics))

    def log_hyperparams(self, *_, **__):
        pass


def test_figures_tables_and_numbers_go_to_whoever_takes_them():
    table = pd.DataFrame({"layer": [1, 2], "r": [0.5, None], "name": ["a|b", "c"]})
    frames = Figure()
    frames.add_subplot().imshow([[[0.1, 0.2, 0.3]]])
    writer = Writer()
    log_results(
        [Other(writer), Other(object()), Other(None)],
        {"fig": Figure(), "table": table, "n": 3, "frames": frames, "clip": Path("clip.mp4")},
    )
    assert writer.taken == [
        ("figure", "fig", False),
        ("text", "table", "| layer | r | name |\n| --- | --- | --- |\n| 1 | 0.5 | a b |\n| 2 |  | c |"),
        ("scalar", "n", 3),
    ]  # what shows frames of clips is not handed on


def test_of_a_long_table_the_first_rows_are_shown():
    writer = Writer()
    log_results([Other(writer)], {"long": pd.DataFrame({"k": range(MOST_ROWS + 7)})})
    text = writer.taken[0][2]
    assert text.count("\n| ") == MOST_ROWS + 1
    assert "7 more rows" in text


def test_a_logger_that_fails_does_not_stop_a_run(caplog):
    class Failing(Writer):
        def add_text(self, name, text):
            raise OSError("the disk is full")

    log_results([Other(Failing())], {"table": pd.DataFrame({"k": [1]})})
    assert "Other did not take table (the disk is full)" in caplog.text


@pytest.mark.parametrize("logger", ["true", "false", "CSVLogger"])
def test_curves_are_on_disk_with_any_logger(tiny_config, tmp_path, logger, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [logger] if logger != "CSVLogger" else [logger, "--trainer.logger.save_dir", str(tmp_path / "csv")]
    run = tmp_path / "r"
    train.main(["fit", "--config", str(tiny_config), "--run", str(run), *QUICK, "--trainer.logger", *given])
    curves = pd.read_csv(run / "tables" / "curves.csv")
    assert curves["epoch"].tolist() == [1, 2]
    assert curves[["train/loss", "val/loss", "val/top1"]].notna().all(axis=None)
    if logger == "CSVLogger":  # every logger counts as the curves do
        theirs = pd.read_csv(next((tmp_path / "csv").rglob("metrics.csv")))
        assert set(theirs["epoch"].dropna()) == {1, 2}


def test_the_bar_counts_epochs_from_one(monkeypatch):
    from types import SimpleNamespace

    from callbacks.progress_bar import EpochBar

    bar = EpochBar()
    bar._trainer = SimpleNamespace(max_epochs=12, sanity_checking=False)
    assert bar._get_train_description(0).strip() == "Epoch 1/12"
    bar._trainer.max_epochs = -1
    assert bar._get_train_description(4).strip() == "Epoch 5"
