"""preview, with a configuration and on a run."""

from pathlib import Path

from tests.commands.calling import code_of, error_of


def test_preview_needs_no_run_and_leaves_none(tiny_config: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, folder in [([], Path()), (["--out", "there"], Path("there"))]:
        assert code_of("preview", "--config", str(tiny_config), "--clips", "2", *arguments) == 0
        assert (folder / "preview_train.png").exists()
        assert (folder / "preview_test.png").exists()
        assert str(folder / "preview_test.png") in capsys.readouterr().out
    assert not Path("runs").exists()


def test_preview_of_a_run_goes_to_its_figures(own_run: Path):
    assert code_of("preview", "--run", str(own_run), "--clips", "2") == 0
    assert (own_run / "figures" / "preview_train.png").exists()


def test_mistakes_in_preview_are_told_in_one_line(tiny_config: Path, capsys):
    assert "clips >= 1" in error_of(capsys, "preview", "--config", str(tiny_config), "--clips", "0")
