"""Folders that are either whole or not there.

A folder is written under another name beside its place and renamed when it is whole. One that stood there before is
renamed aside first and deleted last; where a run dies between the two renames, the next run puts it back.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Host and process tell whose a leftover is; hosts that share a file system cannot see each other's processes.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|replaced)-(?P<host>.+)-(?P<pid>\d+)")


@contextmanager
def whole_folder(folder: Path, proof: str) -> Iterator[Path]:
    """Give a folder to write into, which takes its place when the block ends without an exception.

    Args:
        folder: Where to put it; parents are made, and an earlier folder of this name is replaced.
        proof: A file that an earlier folder must hold to be replaced, so that nothing else is ever deleted.

    Raises:
        ValueError: If what stands in its place is something else.
    """
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(folder.parent)
    _check_replaceable(folder, proof)
    partial, replaced = (_beside(folder, kind) for kind in ("partial", "replaced"))
    try:
        partial.mkdir()
        yield partial
        _write_out(partial)
        _swap(partial, folder, replaced)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def clean_leftovers(parent: Path) -> None:
    """Delete what dead runs left half-written in a folder, and put back what they had only renamed aside."""
    for path in sorted(parent.iterdir()):
        match = LEFTOVER.fullmatch(path.name)
        if match is None or match["host"] != socket.gethostname() or path.is_symlink() or not path.is_dir():
            continue
        pid = int(match["pid"])
        if pid != os.getpid() and _is_alive(pid):
            continue
        place = parent / match["name"]
        if match["kind"] == "replaced" and not place.exists():
            with suppress(FileNotFoundError):  # another run may be cleaning up too
                path.rename(place)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _swap(partial: Path, folder: Path, replaced: Path) -> None:
    """Rename a whole folder to its place, after renaming aside what stands there."""
    if not folder.exists():
        partial.rename(folder)
        return
    folder.rename(replaced)
    try:
        partial.rename(folder)
    except BaseException:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)  # what is left of it, the next run deletes


def _check_replaceable(folder: Path, proof: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"Expected a folder or nothing at {folder}, found a file. Choose another place.")
    if any(folder.iterdir()) and not (folder / proof).is_file():
        raise ValueError(
            f"{folder} holds something else (it has files, but no {proof}) and would be deleted. Choose another place."
        )


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}-{socket.gethostname()}-{os.getpid()}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's process, or no process id at all: not ours to clean
    return True


def _write_out(folder: Path) -> None:
    """Have the disk take the files before the rename, so that a power cut cannot leave a whole name on empty files."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
