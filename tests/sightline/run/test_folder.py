import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sightline.run import folder as run_folder
from sightline.run.folder import (
    VARIABLE,
    claim_run_folder,
    expand_run,
    holds_results,
    launched_rank,
    settle_earlier_runs,
)
from sightline.run.paths import RunFolder
from sightline.run.unfinished import clean_leftovers

LAUNCHER = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "RANK", "LOCAL_RANK", "SLURM_PROCID", VARIABLE)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    yield
    os.environ.pop(VARIABLE, None)  # which claiming a folder sets


def test_folders_are_numbered(tmp_path, monkeypatch):
    for name in ("run", "run-2", "run-3"):
        monkeypatch.delenv(VARIABLE, raising=False)
        folder = claim_run_folder(tmp_path / "run").path
        assert folder == tmp_path / name
        (folder / "config.yaml").touch()


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    assert claim_run_folder(tmp_path / "run").path == tmp_path / "run"


def test_processes_started_from_this_one_take_the_same(tmp_path):
    first = claim_run_folder(tmp_path / "run").path
    (first / "config.yaml").touch()
    assert claim_run_folder(tmp_path / "run").path == first  # the variable is in the environment now


def test_only_a_run_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    assert claim_run_folder(tmp_path / "run", replace=True).path == tmp_path / "run"
    assert not (tmp_path / "run" / "config.yaml").exists()
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        claim_run_folder(tmp_path / "run", replace=True)


def test_a_run_that_replaces_another_keeps_its_choice_of_kernels(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    run = RunFolder(tmp_path / "run")
    for path in (run.config, run.kernels, run.report):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert claim_run_folder(run.path, replace=True).path == run.path
    assert list(run.path.iterdir()) == [run.kernels]


def test_processes_of_torchrun_agree(tmp_path, monkeypatch):
    """Rank 1 asks first and waits until rank 0 has chosen."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    monkeypatch.setenv("RANK", "1")
    found = []
    waiting = threading.Thread(target=lambda: found.append(claim_run_folder(tmp_path / "run").path))
    waiting.start()
    time.sleep(0.3)
    assert not found
    monkeypatch.setenv("RANK", "0")
    chosen = claim_run_folder(tmp_path / "run").path
    waiting.join(5)
    assert chosen == tmp_path / "run-2"
    assert found == [chosen]


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),  # Lightning's own launcher
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, 1),  # the same, in the shell of a SLURM job
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, 3),  # srun: the second node's second process
        ({"RANK": "2", "LOCAL_RANK": "0"}, 2),  # torchrun: the second node's first process
    ],
)
def test_every_launcher_tells_which_process_this_is(environment, rank):
    assert launched_rank(environment) == rank


def test_a_name_that_is_taken_is_said(tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    claim_run_folder(tmp_path / "run")
    assert f"{tmp_path / 'run'} is taken, so this run goes to {tmp_path / 'run-2'}" in caplog.text
    assert len(caplog.messages) == 1


def test_a_folder_in_which_nothing_is_yet_is_given_back(tmp_path):
    claim = claim_run_folder(tmp_path / "run")
    for name in ("config.yaml", "provenance.json", "splits.csv", "tables/split.csv", "wandb/run/files/x.log"):
        (claim.path / name).parent.mkdir(parents=True, exist_ok=True)
        (claim.path / name).touch()
    assert not holds_results(claim.path)
    assert claim.give_back()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["checkpoints/last.ckpt", "tables/curves.csv", "tables/unreadable.csv", "report.html", "thesis.tex"]
)
def test_a_folder_with_anything_of_value_is_kept(tmp_path, name):
    claim = claim_run_folder(tmp_path / "run")
    (claim.path / name).parent.mkdir(exist_ok=True)
    (claim.path / name).touch()
    assert not claim.give_back()
    assert (claim.path / name).exists()


def test_a_folder_that_another_process_made_is_not_given_back(tmp_path):
    made = claim_run_folder(tmp_path / "run")
    assert not claim_run_folder(tmp_path / "run").give_back()
    assert made.path.is_dir()


def test_the_run_that_was_to_be_replaced_comes_back(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("earlier")
    claim = claim_run_folder(tmp_path / "run", replace=True)
    (claim.path / "config.yaml").write_text("new")
    clean_leftovers(tmp_path)  # as whatever this process writes beside it does
    assert claim.give_back()
    assert (tmp_path / "run" / "config.yaml").read_text() == "earlier"
    monkeypatch.delenv(VARIABLE)
    claim = claim_run_folder(tmp_path / "run", replace=True)
    (claim.path / "checkpoints").mkdir()
    (claim.path / "checkpoints" / "last.ckpt").touch()
    claim.give_back()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoints", "last.ckpt"]


def test_a_list_of_unreadable_clips_is_not_worth_an_earlier_run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.config.touch()
    run.best_checkpoint.write_text("earlier")
    claim = claim_run_folder(run.path, replace=True)
    run.tables.mkdir()
    run.unreadable("fit").touch()
    assert claim.give_back()
    assert run.best_checkpoint.read_text() == "earlier"


REPLACE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from sightline.run.folder import claim_run_folder
from sightline.run.paths import RunFolder
run = RunFolder(claim_run_folder(sys.argv[1], replace=True).path)
run.config.write_text("new")
if sys.argv[2] == "trained":
    run.checkpoints.mkdir()
    run.last_checkpoint.write_text("new")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("next_start", ["the same name", "another name", "an analysis"])
@pytest.mark.parametrize("trained", [True, False])
def test_a_killed_replacement_gives_the_earlier_run_back_unless_it_has_weights(tmp_path, trained, next_start):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("earlier")
    run.best_checkpoint.write_text("earlier")
    command = [sys.executable, "-c", REPLACE_AND_DIE, str(run.path), "trained" if trained else "nothing"]
    killed = subprocess.run(command, cwd=Path(run_folder.__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert run.config.read_text() == "new"
    clean_leftovers(tmp_path)  # as whatever writes beside it does
    if next_start == "an analysis":
        assert "--config" in expand_run(["test", "--run", str(run.path)])
    else:
        made = claim_run_folder(tmp_path / ("run" if next_start == "the same name" else "other")).path
        assert made.name == ("run-2" if next_start == "the same name" else "other")
    assert run.config.read_text() == ("new" if trained else "earlier")
    assert run.best_checkpoint.exists() != trained
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_run_is_never_deleted_for_an_earlier_one(tmp_path):
    left = tmp_path / ".run.earlier-elsewhere-1_0"
    (left / "checkpoints").mkdir(parents=True)
    os.utime(left / "checkpoints", (0, 0))
    os.utime(left, (0, 0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    settle_earlier_runs(tmp_path)
    assert (tmp_path / "run" / "thesis.tex").exists()
    assert left.exists()


def test_waiting_ends_with_a_reason(tmp_path):
    with pytest.raises(TimeoutError, match="shared among the nodes"):
        run_folder._wait_for(tmp_path / "never", seconds=0.2)


def test_an_older_launch_of_torchrun_is_not_taken_for_this_one(tmp_path, monkeypatch):
    claim = tmp_path / "claim"
    claim.write_text("old")
    os.utime(claim, (time.time() - 3600,) * 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(TimeoutError):
        run_folder._wait_for(claim, seconds=0.2)
    # A step of a SLURM job has a name of its own, so a node may come late.
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv(run_folder.VARIABLE, "")
    assert run_folder._wait_for(claim, seconds=0.2) == Path("old")
