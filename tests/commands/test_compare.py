"""compare on finished runs."""

from pathlib import Path

from tests.commands.calling import code_of, error_of


def test_runs_are_compared(finished_run: Path, tmp_path: Path, capsys):
    assert code_of("compare", "--runs", str(finished_run), "--out", str(tmp_path / "comparison")) == 0
    assert (tmp_path / "comparison/accuracy_against_cost.png").exists()
    assert "## Accuracy and cost" in capsys.readouterr().out
    told = error_of(capsys, "compare", "--runs", str(tmp_path / "none"), "--out", str(tmp_path / "x"))
    assert "no run with tested models" in told
