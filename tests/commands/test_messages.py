"""What a user can do something about is one line; everything else keeps its traceback."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from sightline.commands.messages import message_of
from tests.commands.calling import error_of


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_a_full_disk_is_named_with_what_to_do():
    told = message_of(OSError(errno.ENOSPC, "No space left on device", "runs/a/tables/test.csv"))
    assert told is not None
    assert told.startswith("runs/a/tables/test.csv could not be written or read: the disk is full. Make room there.")
    assert "run the same command again" in told
    told = message_of(OSError(errno.ENOSPC, "No space left on device"))
    assert told is not None
    assert told.startswith("A file could not be written")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_folders_that_cannot_be_written_to_are_named(number):
    told = message_of(OSError(number, os.strerror(number), "runs/a"))
    assert told is not None
    assert told.startswith("runs/a could not be written")


def test_what_was_being_done_is_kept():
    told = message_of(raised(RuntimeError("X failed after the fit"), OSError(errno.ENOSPC, "No space", "f")))
    assert told is not None
    assert told.startswith("X failed after the fit\nf could not be written")
    assert message_of(raised(RuntimeError("X failed"), ValueError("bad"))) == "X failed"


def test_what_a_class_refuses_is_told_without_the_parsers_list():
    wrapped = ValueError("Does not validate against any of the Union subtypes\nSubtypes: [...]\nErrors:\n  - r is 9")
    assert message_of(raised(wrapped, ValueError("r is 9"))) == "r is 9"
    assert message_of(raised(wrapped, TypeError("x"))) == str(wrapped)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), OSError(errno.EIO, "I/O error"), raised(RuntimeError("x"), KeyError("y"))]
)
def test_defects_keep_their_traceback(error):
    assert message_of(error) is None


def fail_to_write(monkeypatch, number: int, name: str):
    """Let files of a name fail as on a full disk, from inside the write."""
    real = os.replace

    def replace(source, target):
        if Path(target).name == name:
            raise OSError(number, os.strerror(number), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("name", ["test.csv", "confusion.csv", "confusion.svg", "provenance.json"])
def test_a_full_disk_is_one_line_and_leaves_no_halves(own_run, capsys, monkeypatch, name):
    fail_to_write(monkeypatch, errno.ENOSPC, name)
    told = error_of(capsys, "test", "--run", str(own_run))
    assert f"{name} could not be written or read: the disk is full" in told
    assert not [path for path in own_run.rglob(".*") if "partial" in path.name]


def test_a_full_disk_in_training_is_one_line_and_keeps_what_is_whole(tiny_config, tmp_path, capsys, monkeypatch):
    fail_to_write(monkeypatch, errno.ENOSPC, "best.ckpt")
    told = error_of(capsys, "fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"))
    assert "best.ckpt could not be written or read: the disk is full" in told


def test_a_disk_that_is_really_full(tmp_path):
    """The system refuses larger files, in the middle of a checkpoint, as a full disk does."""
    code = """
import sys
from pathlib import Path
import torch
from lightning_modules.checkpoint_io import SafeCheckpointIO
SafeCheckpointIO().save_checkpoint({"x": torch.zeros(100_000)}, Path(sys.argv[1]) / "last.ckpt")
"""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    (tmp_path / "last.ckpt").write_text("whole")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(train.__file__).parent, capture_output=True, text=True, preexec_fn=limit, timeout=100,
    )  # fmt: skip
    assert f"[Errno {errno.EFBIG}]" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_text() == "whole"


def test_a_folder_that_can_only_be_read_is_one_line(own_run, tiny_config, tmp_path, capsys, monkeypatch):
    real = Path.mkdir

    def mkdir(path, *arguments, **options):
        if path.name == "locked":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    told = error_of(capsys, "fit", "--config", str(tiny_config), "--run", str(tmp_path / "locked"))
    assert "locked could not be written or read: it is on a file system that can only be read" in told
    assert "--run" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user whose permissions count; this one may write everywhere")
def test_a_folder_without_permission_is_one_line(own_run, capsys):
    (own_run / "tables").chmod(0o500)
    told = error_of(capsys, "test", "--run", str(own_run))
    (own_run / "tables").chmod(0o700)
    assert "permission was denied" in told
