"""The report after a fit; `tests/sightline/report/page/test_html.py` tests the page itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from callbacks import Report
from tests.sightline.report.comparison.example_runs import make_run


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def trainer(folder: Path, **changes):
    return SimpleNamespace(**{"default_root_dir": str(folder), "fast_dev_run": False, "is_global_zero": True} | changes)


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
