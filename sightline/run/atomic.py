"""Write result files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sightline.run.unfinished import clean_once, temporary_name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to; rename it to ``path`` afterwards, or drop it on an error.

    The temporary name ends as ``path`` does. What processes that are dead left half-written in the folder is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clean_once(path.parent)
    with temporary_name(path) as temporary:
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8 to a file that is either whole or not there.

    What is no UTF-8 in names of files, which Python keeps as lone surrogates, is written as their escapes.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, indented, to a file that is either whole or not there."""
    write_text(path, json.dumps(content, indent=2) + "\n")
