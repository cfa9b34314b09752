"""report on a finished run."""

from pathlib import Path

from tests.commands.calling import code_of, error_of
from tests.sightline.report.comparison.example_runs import make_run


def test_the_command_writes_one_file(tmp_path: Path, capsys):
    run = make_run(tmp_path / "run")
    assert code_of("report", "--run", str(run), "--out", str(tmp_path / "page.html")) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert not (run / "report.html").exists()
    assert str(tmp_path / "page.html") in capsys.readouterr().out


def test_what_is_no_run_gives_one_line(tmp_path: Path, capsys):
    assert "has no config.yaml" in error_of(capsys, "report", "--run", str(tmp_path))
