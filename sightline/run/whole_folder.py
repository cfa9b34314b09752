"""Folders that are either whole or not there.

A folder is written under another name beside its place and renamed when it is whole. One that stood there before is
renamed aside first and deleted last; where a run dies between the two renames, the next run puts it back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sightline.run.unfinished import clean_leftovers, temporary_name


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
    with temporary_name(folder) as partial, temporary_name(folder, "replaced") as replaced:
        try:
            partial.mkdir()
            yield partial
            _write_out(partial)
            _swap(partial, folder, replaced)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


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


def _write_out(folder: Path) -> None:
    """Have the disk take the files before the rename, so that a power cut cannot leave a whole name on empty files."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
