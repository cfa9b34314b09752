import logging

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import wandb
from matplotlib.figure import Figure
from PIL import Image

from callbacks.logging_results import log_results
from callbacks.wandb_logger import CarefulWandbLogger, WandbOptions, wandb_logger
from sightline.report.figures.confusion import confusion_figure
from sightline.report.figures.contact_sheet import contact_sheet


@pytest.fixture
def no_mode(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    yield
    wandb.finish()


def test_without_a_login_it_works_offline_and_keeps_what_is_logged(tmp_path, no_mode, monkeypatch):
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    logger = wandb_logger(WandbOptions(), tmp_path)
    assert logger is not None
    logger.log_metrics({"x": 1.0}, 0)
    log_results([logger], {"table": pd.DataFrame({"a": [1, None]})})
    logger.finalize("success")
    wandb.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json"))


def test_an_unreachable_server_means_offline(tmp_path, no_mode, monkeypatch):
    def unreachable(**_):
        raise OSError("no route")

    monkeypatch.setattr(wandb, "login", unreachable)
    assert wandb_logger(WandbOptions(), tmp_path) is not None
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_disabled_is_disabled(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(WandbOptions(), tmp_path) is None
    assert wandb_logger(WandbOptions(mode="disabled"), tmp_path) is None


def test_when_wandb_cannot_start_at_all_the_run_goes_on(tmp_path, no_mode, monkeypatch, caplog):
    def broken(**_):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    assert wandb_logger(WandbOptions(mode="online"), tmp_path) is None
    assert "continues without W&B" in caplog.text


def test_a_failure_in_the_middle_is_told_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    class Dead:
        def log(self, *_, **__):
            raise ConnectionError("service died")

    monkeypatch.setattr(CarefulWandbLogger, "experiment", Dead())
    logger = CarefulWandbLogger(save_dir=str(tmp_path), offline=True)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            logger.log_metrics({"x": 1.0}, step)
        log_results([logger], {"table": pd.DataFrame({"a": [1]})})
    assert caplog.text.count("the run continues") == 1
    assert "same results are in the run's folder" in caplog.text


class Collector:
    """Stands for a W&B run: keeps what is logged."""

    def __init__(self):
        self.logged: dict = {}

    def log(self, content, *_, **__):
        self.logged |= content


def figure_of(image) -> Figure:
    figure = Figure()
    figure.add_subplot().imshow(image)
    return figure


@pytest.fixture
def results(tmp_path):
    """Everything that callbacks log: numbers, tables, figures, and what shows frames."""
    Image.new("RGB", (4, 4)).save(tmp_path / "map.png")
    (tmp_path / "map.mp4").write_bytes(b"frames")
    photo = go.Figure().add_layout_image(source="data:image/png;base64,", x=0, y=0)
    return {
        "number": 1.5,
        "table": pd.DataFrame({"a": [1]}),
        "boxes": go.Figure(go.Box(y=[1, 2])),
        "matrix": figure_of(np.zeros((2, 2))),
        "sheet": figure_of(np.zeros((2, 2, 3))),
        "photo": photo,
        "map": tmp_path / "map.png",
        "clip": tmp_path / "map.mp4",
        "array": np.zeros((2, 3, 4, 4)),
    }


@pytest.mark.parametrize("upload", [False, True])
def test_frames_are_uploaded_only_where_that_is_asked_for(tmp_path, monkeypatch, results, upload):
    run = Collector()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(CarefulWandbLogger, "experiment", run)
    logger = wandb_logger(WandbOptions(mode="offline", upload_media=upload), tmp_path)
    log_results([logger], results)
    free = {"number", "table", "boxes", "matrix"}
    assert set(run.logged) == (set(results) if upload else free)
    if upload:
        assert isinstance(run.logged["clip"], wandb.Video)
        assert isinstance(run.logged["map"], wandb.Image)


def test_frames_are_not_uploaded_unless_told():
    assert WandbOptions().upload_media is False
    assert CarefulWandbLogger.upload_media is False


def test_what_runs_log_by_themselves_has_no_frames(tmp_path, monkeypatch):
    run = Collector()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(CarefulWandbLogger, "experiment", run)
    logger = wandb_logger(WandbOptions(mode="offline"), tmp_path)
    figure = confusion_figure(np.eye(3), ["a", "b", "c"])
    log_results([logger], {"confusion": figure})
    assert set(run.logged) == {"confusion"}
    sheet = contact_sheet([np.zeros((2, 8, 8, 3), dtype=np.uint8)], ["clip"], "Clips")
    log_results([logger], {"sheet": sheet})
    assert set(run.logged) == {"confusion"}
