import shutil
from pathlib import Path

import pytest

from tests.older_runs.fixture import OLD


@pytest.fixture(autouse=True)
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGHTLINE_TRACEBACK", "1")
