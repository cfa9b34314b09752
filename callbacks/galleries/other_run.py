"""Another run's model, to be looked at beside the run's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from callbacks.analysis import Context
from sightline.checkpoints.files import CheckpointError
from sightline.checkpoints.trained import load_trained, trained_checkpoint
from sightline.report.stored.run_results import RunResults
from sightline.run.folder import is_run_folder
from sightline.run.paths import RunFolder


def other_run(context: Context, folder: Path) -> Context:
    """Return a context with another run's folder and model; data, split and processes stay those of the command.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no run's, is of another version, or has no checkpoint that can be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Set other to the folder of a finished run.")
    if not is_run_folder(folder):
        raise ValueError(f"{folder} is not a run's folder: it has no config.yaml. Set other to that of a finished run.")
    RunResults(folder).manifest("train")  # raises where the folder, or what was scored, is of another version
    try:
        path = str(trained_checkpoint(RunFolder(folder)))
    except CheckpointError:
        raise CheckpointError(
            f"{folder} has no checkpoints/best.ckpt, so there is no model to draw. Set other to a run that was trained."
        ) from None
    backbone = load_trained(path).to(next(context.backbone.parameters()).device)
    return replace(context, folder=folder, backbone=backbone, checkpoint=path)
