"""Names of files and folders that are not whole yet, and what becomes of those whose writers are dead.

Whatever is written is written under such a name beside its place, and renamed when it is whole. So a name without this
mark is whole, and what a killed process left behind is recognised by the name alone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Literal

# Host and process tell whose a leftover is; the number keeps the threads of a process apart. A file's suffix comes
# last, because writers choose a format by it.
_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<kind>partial|replaced|earlier)-(?P<host>.+)-(?P<pid>\d+)(_\d+)?(?P<suffix>\.[^.]*)?"
)
# Hosts that share a file system cannot see each other's processes; nobody writes on one file or folder for this long.
_ABANDONED_SECONDS = 24 * 3600
# ``partial`` is to become what its name says, ``replaced`` was it; which of an ``earlier`` run and the one in its place
# is of value, only `sightline.run.folder` knows.
Kind = Literal["partial", "replaced", "earlier"]
_numbers = count()
_own: set[str] = set()  # names, since a folder can be named in several ways
_cleaned: set[tuple[int, Path]] = set()


@contextmanager
def temporary_name(path: Path, kind: Kind = "partial") -> Iterator[Path]:
    """Give a name beside a path for what is to become it, or was it; it counts as in use until the block ends."""
    writer = f"{socket.gethostname()}-{os.getpid()}_{next(_numbers)}"
    temporary = path.with_name(f".{path.stem}.{kind}-{writer}{path.suffix}")
    _own.add(temporary.name)
    try:
        yield temporary
    finally:
        _own.discard(temporary.name)


def is_unfinished(name: str) -> bool:
    """Whether a file's or folder's name says that it is not whole."""
    return _NAME.fullmatch(name) is not None


def final_name(name: str) -> str:
    """Return what an unfinished file or folder was to be called; other names as they are."""
    match = _NAME.fullmatch(name)
    return name if match is None else match["name"] + (match["suffix"] or "")


def clean_once(folder: Path) -> None:
    """Clean a folder the first time that this process writes there: it may hold many files, and be slow to list."""
    key = (os.getpid(), folder.absolute())
    if key not in _cleaned:
        _cleaned.add(key)
        clean_leftovers(folder)


def clean_leftovers(folder: Path) -> None:
    """Delete what dead processes left half-written in a folder, and put back what they had only renamed aside."""
    for path, kind in left_by_dead(folder):
        place = folder / final_name(path.name)
        with suppress(FileNotFoundError, PermissionError):  # cleaned by another process, or another user's
            if kind == "earlier":
                continue
            if kind == "replaced" and not place.exists():
                path.rename(place)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def left_by_dead(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the unfinished files and folders in a folder whose writers are dead, and of which kind each is."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if is_unfinished(entry.name))
    for name in found:
        path, match = folder / name, _NAME.fullmatch(name)
        assert match is not None
        if not path.is_symlink() and name not in _own and not _is_alive(path, match["host"], int(match["pid"])):
            yield path, match["kind"]


def clean_tree(folder: Path) -> None:
    """Clean a folder and all folders in it, and what was to become the folder itself."""
    if folder.parent.is_dir():
        clean_leftovers(folder.parent)
    for place, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not is_unfinished(name)]
        clean_leftovers(Path(place))


def _is_alive(path: Path, host: str, pid: int) -> bool:
    """Whether the writer of an unfinished file or folder may still be at work."""
    if host != socket.gethostname():
        with suppress(OSError):
            newest = max(file.stat().st_mtime for file in (path, *(path.iterdir() if path.is_dir() else ())))
            return time.time() - newest < _ABANDONED_SECONDS
        return True
    if pid == os.getpid():
        return False  # an earlier process had this process's number; its own names in use are known
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's process, or no process id at all: not ours to clean
    return True
