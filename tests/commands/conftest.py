"""A finished run, which the commands start from."""

import os
import shutil
from pathlib import Path

import pytest

import train
from sightline.run.folder import VARIABLE
from tests import conftest


@pytest.fixture(autouse=True)
def no_run_folder_from_another_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "")
    yield
    os.environ.pop(VARIABLE, None)


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
