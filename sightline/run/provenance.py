"""What was run in a run's folder, when, and with which versions: ``provenance.json``."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sightline.run.atomic import write_json
from sightline.run.paths import RunFolder

RUN_FORMAT = 1
"""Version of a run folder's layout. Raise it when an older reader would misunderstand a newer folder."""
PACKAGES = ("sightline", "torch", "torchvision", "lightning", "timm", "av")


def record_command(folder: Path, arguments: Sequence[str]) -> None:
    """Add a command of `train.py` to the folder's record, with the time and the versions it runs with."""
    known = read_provenance(folder) or {"run_format": RUN_FORMAT, "commands": []}
    known["commands"].append(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "train.py", *arguments]),
            "versions": versions(),
        }
    )
    write_json(RunFolder(folder).provenance, known)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Read a folder's record; None where it has none.

    Raises:
        ValueError: If the folder was written in another format than this version knows.
    """
    path = RunFolder(folder).provenance
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, commands = content["run_format"], list(content["commands"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of a run's commands ({error!r}). Delete or restore it.") from error
    if found != RUN_FORMAT:
        raise ValueError(
            f"{folder} is a run folder of format {found}; this version of Sightline reads format {RUN_FORMAT}. "
            "Use the version that made it, or train a new run."
        )
    return {**content, "commands": commands}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # Sightline itself, where it is run without being installed
            found[name] = "unknown"
    return found
