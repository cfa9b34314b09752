"""Choosing a run's folder: no run overwrites another, and all processes of a launch agree on one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline.run.atomic import write_text
from sightline.run.paths import RunFolder

# Tells the processes that a launcher starts from this one which folder was chosen.
VARIABLE = "SIGHTLINE_RUN_FOLDER"
_STARTED = time.time()


def claim_run_folder(wanted: str | Path, replace: bool = False) -> Path:
    """Choose the folder of a new run and create it; the processes of one launch get the same one.

    Args:
        wanted: The folder asked for. Where it holds something, ``-2``, ``-3``, ... is appended.
        replace: Delete an earlier run there instead.

    Raises:
        ValueError: If ``replace`` asks for the deletion of a folder that is not a run's.
        TimeoutError: If the first process of the launch does not say in time which folder it chose.
    """
    environment = os.environ
    if VARIABLE in environment:
        return Path(environment[VARIABLE])
    claim = _claim_file(Path(wanted), environment)
    if claim is not None and launched_rank(environment) > 0:
        return _wait_for(claim)
    if claim is not None:
        claim.unlink(missing_ok=True)
    folder = _new_folder(Path(wanted), replace)
    environment[VARIABLE] = str(folder)
    if claim is not None:
        write_text(claim, str(folder))
    return folder


def is_run_folder(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return RunFolder(folder).config.is_file()


def _new_folder(wanted: Path, replace: bool) -> Path:
    kernels: str | None = None
    if replace and wanted.exists():
        if not is_run_folder(wanted) and any(wanted.iterdir()):
            raise ValueError(
                f"{wanted} is not a run's folder (it has no config.yaml) and is not deleted. Name another."
            )
        # The same command on the same machine gives the same numbers, so which kernels run stays as it was.
        if (choice := RunFolder(wanted).kernels).is_file():
            kernels = choice.read_text(encoding="utf-8")
        shutil.rmtree(wanted)
    number, folder = 1, wanted
    while True:
        if not folder.exists() or not any(folder.iterdir()):
            folder.mkdir(parents=True, exist_ok=True)
            if kernels is not None:
                write_text(RunFolder(folder).kernels, kernels)
            return folder
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")


def launched_rank(environment: Mapping[str, str]) -> int:
    """Return which process of a launch this is, by what the launcher says in the environment."""
    # In Lightning's order: a SLURM job's shell has a SLURM_PROCID, which the processes that Lightning starts inherit.
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(environment[name]) for name in names if name in environment), 0)


def _claim_file(wanted: Path, environment: Mapping[str, str]) -> Path | None:
    """Where the first process of an outside launcher (torchrun, SLURM) writes its choice; None without one."""
    if "TORCHELASTIC_RUN_ID" in environment:
        names: tuple[str, ...] = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    elif int(environment.get("SLURM_NTASKS", "1")) > 1:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return None
    launch = "-".join([wanted.name, *(environment.get(name, "") for name in names)])
    return wanted.parent / ".launches" / "".join(c if c.isalnum() else "-" for c in launch)


def _wait_for(claim: Path, seconds: float = 120) -> Path:
    deadline = time.monotonic() + seconds
    # An older launch of torchrun with the same name may have left its claim. A step of a SLURM job has a name of its
    # own, and its nodes may start far apart.
    oldest = _STARTED - 30 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
    while time.monotonic() < deadline:
        if claim.exists() and claim.stat().st_mtime > oldest:
            folder = Path(claim.read_text())
            os.environ[VARIABLE] = str(folder)
            return folder
        time.sleep(0.1)
    raise TimeoutError(
        f"The first process of this launch did not write its run folder to {claim} within {seconds:.0f} s. "
        "Is the folder shared among the nodes?"
    )


def keep_curves(run: RunFolder) -> None:
    """Put the curves of an interrupted fit aside: a logger begins its file anew."""
    path = run.curves
    if launched_rank(os.environ) == 0 and path.is_file():
        number = 1
        while (aside := run.table(f"{path.stem}-part{number}")).exists():
            number += 1
        path.rename(aside)


def default_run_folder(data_class: str, backbone: str) -> str:
    """Return runs/<data>-<backbone>."""
    return f"runs/{data_class.rsplit('.', 1)[-1].lower()}-{backbone}"


def expand_run(arguments: Sequence[str]) -> list[str]:
    """Let ``--run DIR`` of an existing run stand for its configuration, which later options override.

    Raises:
        ValueError: If a command that needs a finished run is given a folder that is none.
    """
    arguments = list(arguments)
    if not arguments or arguments[0] in ("fit", "-h", "--help"):
        return arguments
    for place, argument in enumerate(arguments):
        folder = argument.partition("=")[2] if argument.startswith("--run=") else None
        if argument == "--run" and place + 1 < len(arguments):
            folder = arguments[place + 1]
        if folder:
            if not is_run_folder(Path(folder)):
                raise ValueError(f"{folder} is not a run's folder: it has no config.yaml. Train one with train.py fit.")
            return [arguments[0], "--config", str(RunFolder(Path(folder)).config), *arguments[1:]]
    return arguments
