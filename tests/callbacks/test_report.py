"""The report after a fit and as a command; `tests/sightline/report/page/test_html.py` tests the page itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import train
from callbacks import Report
from tests.sightline.report.comparison.example_runs import make_run


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def trainer(folder: Path, **changes):
    return SimpleNamespace(**{"default_root_dir": str(folder), "fast_dev_run": False, "is_global_zero": True} | changes)


def test_the_command_writes_one_file(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["report", "--run", str(run), "--out", str(tmp_path / "page.html")])
    assert stopped.value.code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert not (run / "report.html").exists()
    assert str(tmp_path / "page.html") in capsys.readouterr().out


def test_what_is_no_run_gives_one_line(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        train.main(["report", "--run", str(tmp_path)])
    assert "has no config.yaml" in str(stopped.value)


def test_after_a_fit_the_first_process_writes_it(run):
    Report().on_fit_end(trainer(run, is_global_zero=False), None)
    Report().on_fit_end(trainer(run, fast_dev_run=True), None)
    assert not (run / "report.html").exists()
    Report().on_fit_end(trainer(run), None)
    assert (run / "report.html").is_file()


def test_a_failure_after_a_fit_says_how_to_go_on(run):
    (run / "attention" / "index.json").write_text("[]")
    with pytest.raises(RuntimeError, match=r"python train\.py report --run"):
        Report().on_fit_end(trainer(run), None)
