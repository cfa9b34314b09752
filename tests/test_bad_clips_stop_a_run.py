"""Clips that cannot be read, in a real fit: a few are replaced, too many stop it."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

import train
from tests.conftest import copied_clips


@pytest.fixture
def fit(tiny_config, cabin_root, tmp_path):
    """Fit for an epoch on the cabin's clips with the first clips of a class unreadable."""

    def fit(broken: int, fraction: float) -> Path:
        config = yaml.safe_load(tiny_config.read_text()) | {"data": copied_clips(cabin_root, tmp_path / "clips")}
        config["data"]["init_args"]["max_bad_fraction"] = fraction
        config["trainer"] |= {"callbacks": None, "max_epochs": 1}
        tiny_config.write_text(yaml.safe_dump(config))
        files = sorted((tmp_path / "clips").rglob("*steering*.mp4"))
        assert len(files) >= 36, files
        for file in files[:broken]:
            file.write_bytes(b"")
        train.main(["fit", "--config", str(tiny_config), "--run", str(tmp_path / "run")])
        return tmp_path / "run"

    return fit


def test_a_few_are_listed(fit, caplog):
    run = fit(3, 0.5)
    listed = pd.read_csv(run / "tables" / "unreadable.csv")
    assert len(listed) == 3
    assert listed["sample_id"].is_unique
    splits = pd.read_csv(run / "splits.csv").set_index("sample_id")["split"]
    assert splits[listed["sample_id"]].tolist() == listed["split"].tolist()
    told = "\n".join(record.getMessage() for record in caplog.records if "could not be read" in record.getMessage())
    assert all(name in told for name in listed["sample_id"])


def test_too_many_stop_the_run_with_their_names(fit, tmp_path):
    with pytest.raises(SystemExit, match=r"error: Expected at most 1 unreadable clip\(s\).*met \d+ .all are listed in"):
        fit(30, 0.01)
    listed = pd.read_csv(tmp_path / "run" / "tables" / "unreadable.csv")
    assert len(listed) >= 2
