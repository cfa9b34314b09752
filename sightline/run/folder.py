"""Choosing a run's folder: no run overwrites another, and all processes of a launch agree on one."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sightline.run.atomic import write_text
from sightline.run.paths import RunFolder
from sightline.run.unfinished import final_name, is_unfinished, left_by_dead, temporary_name

log = logging.getLogger(__name__)

# Tells the processes that a launcher starts from this one which folder was chosen.
VARIABLE = "SIGHTLINE_RUN_FOLDER"
_STARTED = time.time()


@dataclass
class Claim:
    """A run's folder, and what to do about it once the run has begun, or has failed to.

    Attributes:
        path: The folder.
        made: Whether this process made it, for a new run.
        earlier: Where an earlier run waits that this one replaces.
        in_use: Keeps that name from being cleaned up.
    """

    path: Path
    made: bool = False
    earlier: Path | None = None
    in_use: ExitStack = field(default_factory=ExitStack)

    def keep(self) -> None:
        """Keep the folder; an earlier run that it replaces is deleted only now."""
        if self.earlier is not None:
            shutil.rmtree(self.earlier, ignore_errors=True)
        self.earlier = None
        self.in_use.close()

    def give_back(self) -> bool:
        """Delete the folder if this process made it and nothing of value is in it; an earlier run comes back.

        In the place of an earlier run only a checkpoint is of value.

        Returns:
            Whether it was deleted; else it is kept.
        """
        of_value = holds_results if self.earlier is None else holds_checkpoint
        if not self.made or not self.path.is_dir() or of_value(self.path):
            self.keep()
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        if self.earlier is not None:
            self.earlier.rename(self.path)
        self.earlier = None
        self.in_use.close()
        return True


def claim_run_folder(wanted: str | Path, replace: bool = False) -> Claim:
    """Choose the folder of a new run and create it; the processes of one launch get the same one.

    Args:
        wanted: The folder asked for. Where it holds something, ``-2``, ``-3``, ... is appended, and that is said.
        replace: Put the new run in the place of an earlier run instead, see `Claim.keep`.

    Raises:
        ValueError: If ``replace`` asks for the deletion of a folder that is not a run's.
        TimeoutError: If the first process of the launch does not say in time which folder it chose.
    """
    environment = os.environ
    if VARIABLE in environment:
        return Claim(Path(environment[VARIABLE]))
    claim = _claim_file(Path(wanted), environment)
    if claim is not None and launched_rank(environment) > 0:
        return Claim(_wait_for(claim))
    if claim is not None:
        claim.unlink(missing_ok=True)
    settle_earlier_runs(Path(wanted).parent)
    claimed = _replaced(Path(wanted)) if replace else _new_folder(Path(wanted))
    environment[VARIABLE] = str(claimed.path)
    if claim is not None:
        write_text(claim, str(claimed.path))
    return claimed


def holds_results(folder: Path) -> bool:
    """Whether a run's folder holds more than what a run writes down before it trains."""
    run = RunFolder(folder)
    before = {run.config, run.provenance, run.splits, run.kernels, run.table("split")}
    for path in folder.rglob("*"):
        beside = run.wandb in path.parents or is_unfinished(path.name) or is_unfinished(path.parent.name)
        if path.is_file() and path not in before and not beside:
            return True
    return False


def holds_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds weights."""
    return any(not is_unfinished(path.name) for path in RunFolder(folder).checkpoints.glob("*.ckpt"))


def settle_earlier_runs(folder: Path) -> None:
    """Bring back the earlier runs in a folder whose replacements were killed before they had a checkpoint.

    Those of which the replacement has one are deleted.
    """
    for left, kind in left_by_dead(folder) if os.access(folder, os.R_OK) else ():
        place = folder / final_name(left.name)
        if kind != "earlier" or (place.exists() and not is_run_folder(place) and any(place.iterdir())):
            continue
        with temporary_name(place, "earlier") as earlier:
            try:
                left.rename(earlier)  # only one process can
            except FileNotFoundError:
                continue
            if holds_checkpoint(place):
                shutil.rmtree(earlier, ignore_errors=True)
                continue
            shutil.rmtree(place, ignore_errors=True)
            earlier.rename(place)
        log.warning("NOTE: the earlier run of %s is back: what was to replace it ended without a checkpoint.", place)


def is_run_folder(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return RunFolder(folder).config.is_file()


def _new_folder(wanted: Path) -> Claim:
    """Make the folder, or one with a number behind its name where it holds something."""
    number, folder = 1, wanted
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir() or any(folder.iterdir()):
                number += 1
                folder = wanted.with_name(f"{wanted.name}-{number}")
                continue
        if folder != wanted:
            log.warning(
                "NOTE: %s is taken, so this run goes to %s. (--replace_run true puts a run in an earlier one's place.)",
                wanted,
                folder,
            )
        return Claim(folder, made=True)


def _replaced(wanted: Path) -> Claim:
    """Make the folder, after setting an earlier run's aside."""
    if not wanted.exists():
        return _new_folder(wanted)
    if not is_run_folder(wanted) and any(wanted.iterdir()):
        raise ValueError(f"{wanted} is not a run's folder (it has no config.yaml) and is not deleted. Name another.")
    in_use = ExitStack()
    earlier = in_use.enter_context(temporary_name(wanted, "earlier"))
    wanted.rename(earlier)
    os.utime(earlier)  # other machines judge by it whether the name is in use
    wanted.mkdir()
    # The same command on the same machine gives the same numbers, so which kernels run stays as it was.
    if (choice := RunFolder(earlier).kernels).is_file():
        shutil.copyfile(choice, RunFolder(wanted).kernels)
    return Claim(wanted, made=True, earlier=earlier, in_use=in_use)


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
            if launched_rank(os.environ) == 0:
                settle_earlier_runs(Path(folder).parent)
            if not is_run_folder(Path(folder)):
                raise ValueError(f"{folder} is not a run's folder: it has no config.yaml. Train one with train.py fit.")
            return [arguments[0], "--config", str(RunFolder(Path(folder)).config), *arguments[1:]]
    return arguments
