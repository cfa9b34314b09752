"""A finished run, which the commands start from."""

import shutil
from pathlib import Path

import pytest

import train
from tests import conftest


@pytest.fixture(autouse=True)
def errors_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cabin_root: Path) -> Path:
    """The whole main job, run once; tests read it, see `own_run`."""
    folder = tmp_path_factory.mktemp("runs")
    config = conftest.tiny_config.__wrapped__(cabin_root, folder)  # type: ignore[attr-defined]
    report = ["--trainer.callbacks+=callbacks.Report"]
    train.main(["fit", "--config", str(config), "--run", str(folder / "run"), *report])
    return folder / "run"


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for tests that write there."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
