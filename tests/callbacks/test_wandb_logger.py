import logging

import pandas as pd
import pytest
import wandb

from callbacks.logging_results import log_to_wandb
from callbacks.wandb_logger import CarefulWandbLogger, WandbOptions, wandb_logger


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
    log_to_wandb([logger], {"table": pd.DataFrame({"a": [1, None]})})
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
    assert "goes on without W&B" in caplog.text


def test_a_failure_in_the_middle_is_told_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    class Dead:
        def log(self, *_, **__):
            raise ConnectionError("service died")

    monkeypatch.setattr(CarefulWandbLogger, "experiment", Dead())
    logger = CarefulWandbLogger(save_dir=str(tmp_path), offline=True)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            logger.log_metrics({"x": 1.0}, step)
        log_to_wandb([logger], {"table": pd.DataFrame({"a": [1]})})
    assert caplog.text.count("the run goes on") == 1
    assert "same results are in the run's folder" in caplog.text
