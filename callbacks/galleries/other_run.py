"""Another run's model, to be looked at beside the run's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from callbacks.analysis import Context, run_checkpoint
from lightning_modules.video_classifier import STRUCTURE, VideoClassifier
from sightline.backbones import Backbone
from sightline.checkpoints.loading import CheckpointError, plain_state_dict, read_checkpoint
from sightline.export.reading import describe_misfit
from sightline.report.page.run_results import RunResults
from sightline.run.folder import is_run_folder


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
        path = run_checkpoint(folder)
    except CheckpointError:
        raise CheckpointError(
            f"{folder} has no checkpoints/best.ckpt, so there is no model to draw. Set other to a run that was trained."
        ) from None
    backbone = load_classifier(path).to(next(context.backbone.parameters()).device)
    return replace(context, folder=folder, backbone=backbone, checkpoint=path)


def load_classifier(path: str) -> Backbone:
    """Build the model of a run's checkpoint, with its weights and its record, on the CPU in evaluation mode.

    Raises:
        CheckpointError: If the file cannot be read without running code, or is no run's.
        ValueError: If this version builds the model otherwise.
    """
    content = dict(read_checkpoint(path))
    stored = content.get("hyper_parameters")
    if not isinstance(stored, dict) or stored.get("backbone") is None:
        raise CheckpointError(f"{path} does not say which backbone it holds, so it was not saved by a run.")
    with torch.random.fork_rng(devices=[]):  # random initialisation must not change what the caller draws next
        module = VideoClassifier(**{key: stored[key] for key in STRUCTURE if key in stored})
    module.on_load_checkpoint(content)
    tensors = plain_state_dict(content, path)
    misfit = describe_misfit(module.backbone.state_dict(), tensors)
    if misfit:
        raise CheckpointError(f"{path} does not fit the {stored['backbone']} that it says it holds: {misfit}.")
    module.backbone.load_state_dict(tensors)
    return module.backbone.float().eval().requires_grad_(False)
