"""Files and folders are whole or not there, and what killed processes leave is recognised and removed by one rule."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sightline.run import unfinished
from sightline.run.atomic import replacing, write_json
from sightline.run.unfinished import clean_leftovers, final_name, is_unfinished, temporary_name
from sightline.run.whole_folder import whole_folder

HOST = socket.gethostname()
ROOT = Path(__file__).resolve().parents[3]
WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from sightline.run.atomic import replacing
from sightline.run.whole_folder import whole_folder
folder = Path(sys.argv[1])
with replacing(folder / "table.csv") as file, whole_folder(folder / "model", "model.json") as whole:
    file.write_text("half")
    (whole / "model.json").write_text("half")
    print("ready", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["table.csv", "model", "a.b.png", "relevance-r-lowest-k2", ".hidden.json"])
def test_names_are_recognised_and_told_back(tmp_path, name):
    for kind in ("partial", "replaced", "earlier"):
        with temporary_name(tmp_path / name, kind) as temporary:
            assert temporary.name.endswith(Path(name).suffix)
            assert is_unfinished(temporary.name)
            assert final_name(temporary.name) == name
    assert not is_unfinished(name)
    assert final_name(name) == name


def test_two_writers_in_one_process_have_names_of_their_own(tmp_path):
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
        clean_leftovers(tmp_path)  # what this process is writing is no leftover
    assert (tmp_path / "a.txt").read_text() == "first"  # renamed last
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_earlier_file(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "new" / "a.json", {"x": object()})

    def interrupted() -> None:
        with replacing(tmp_path / "new" / "a.json") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in (tmp_path / "new").iterdir()] == ['{\n  "x": 1\n}\n']


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path, monkeypatch):
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 2
        clean_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2  # its writer is alive
        process.kill()
    monkeypatch.setattr(unfinished, "_cleaned", set())  # as in a new process
    write_json(tmp_path / "other.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_leftovers_of_the_dead_go_and_those_of_others_stay(tmp_path, dead_pid):
    gone = [
        f".a.partial-{HOST}-{dead_pid}_3.csv",
        f".model.partial-{HOST}-{dead_pid}",  # as earlier versions named folders
        f".b.partial-{HOST}-{os.getpid()}_999999.csv",  # an earlier process with this one's number
        f".old.partial-not{HOST}-{dead_pid}_0.csv",
    ]
    kept = [
        f".a.partial-{HOST}-{os.getppid()}_3.csv",
        f".new.partial-not{HOST}-{dead_pid}_0.csv",
        f".a.partial-{HOST}-99999999999999999999_3.csv",
        "a.csv",
        ".a.123.tmp.csv",
    ]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / gone[-1], (time.time() - 2 * 24 * 3600,) * 2)
    (tmp_path / "target").mkdir()
    link = tmp_path / f".link.partial-{HOST}-{dead_pid}_0"
    link.symlink_to(tmp_path / "target")
    clean_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "target", link.name])


def test_a_folder_put_aside_comes_back_unless_there_is_a_newer_one(tmp_path, dead_pid):
    for name in ("first", "second"):
        aside = tmp_path / f".{name}.replaced-{HOST}-{dead_pid}_0"
        aside.mkdir()
        (aside / "model.json").write_text("old")
    with whole_folder(tmp_path / "second", "model.json") as folder:
        assert (tmp_path / "second" / "model.json").read_text() == "old"
        (folder / "model.json").write_text("new")
    assert {path.name: (path / "model.json").read_text() for path in tmp_path.iterdir()} == {
        "first": "old", "second": "new"
    }  # fmt: skip
