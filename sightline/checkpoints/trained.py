"""The model of a run's checkpoint: how it is built, its weights and its record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sightline.backbones import Backbone, build_backbone
from sightline.checkpoints.files import CheckpointError, read_checkpoint, state_dict_of
from sightline.checkpoints.finite import check_finite
from sightline.checkpoints.structure import misfit_of, removed_units, structure_of
from sightline.run.paths import RunFolder
from sightline.types import ModelRecord


def trained_checkpoint(run: RunFolder) -> Path:
    """Return a run's best weights, or its last where nothing was validated.

    Raises:
        CheckpointError: If the run has no checkpoint.
    """
    for path in (run.best_checkpoint, run.last_checkpoint):
        if path.is_file():
            return path
    raise CheckpointError(
        f"There is no checkpoint in {run.checkpoints}. Train first (python train.py fit ...) or pass --ckpt_path."
    )


def load_trained(path: str | Path) -> Backbone:
    """Build the model of a run's checkpoint, with its weights and its record.

    Returns:
        The model in float32, on the CPU, in evaluation mode, its parameters frozen.

    Raises:
        CheckpointError: If the file cannot be read without running code, holds no model of a run, weights that are not
            finite, or a model that runs with fewer tokens, which a backbone alone does not.
        ValueError: If this version builds the model otherwise.
    """
    content = read_checkpoint(path)
    backbone = model_of(content, path)
    if tokens := structure_of(content)["tokens"]:
        raise CheckpointError(f"{path} holds a model that runs with tokens {tokens}. Pass one that runs with all.")
    return backbone


def model_of(content: Mapping[str, Any], path: str | Path) -> Backbone:
    """Build the model of a checkpoint's content that was read from ``path``, whatever tokens it runs with.

    See `load_trained`.
    """
    structure = structure_of(content)
    tensors = plain_state_dict(content, path)
    check_state_dict(structure, tensors, path)
    with torch.random.fork_rng(devices=[]):  # random initialisation must not change what the caller draws next
        backbone = build_structure(structure)
    check_and_record(backbone, content, structure)
    check_finite(tensors, path)
    backbone.load_state_dict(tensors)
    return backbone.float().eval().requires_grad_(False)


def check_state_dict(structure: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Check that a state dict is that of the model with this structure, before memory is given to one.

    Raises:
        CheckpointError: If it is not, or there is no such model.
    """
    try:
        misfit = misfit_of(lambda: build_structure(structure), tensors)
    except (ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} says that it holds a model that cannot be: {error}") from error
    if misfit:
        raise CheckpointError(f"{path} does not fit the {structure['backbone']} that it says it holds: {misfit}.")


def build_structure(structure: Mapping[str, Any]) -> Backbone:
    """Build a backbone with random weights from the values of `STRUCTURE`; class names become part of its record."""
    layers, heads = removed_units(structure["removed_layers"] or (), structure["removed_heads"] or ())
    backbone = build_backbone(
        structure["backbone"],
        structure["num_classes"],
        backbone_options(structure),
        layers,
        heads,
        structure.get("interpreters"),
    )
    names = tuple(map(str, structure["class_names"] or ()))
    backbone.set_record(dataclasses.replace(backbone.record, class_names=names))
    return backbone


def check_and_record(backbone: Backbone, content: Mapping[str, Any], structure: Mapping[str, Any]) -> None:
    """Give a backbone built from a checkpoint's structure the record that the checkpoint holds.

    Raises:
        ValueError: If this version builds the model otherwise than the one that wrote the checkpoint.
    """
    config = built_as(backbone, structure["tokens"])
    if content.get("config", config) != config:
        raise ValueError(
            f"The checkpoint's {structure['backbone']} was built as {content['config']}; this version builds it as "
            f"{config}. Use the version of Sightline that wrote the checkpoint."
        )
    record = content.get("record")
    if record is not None:
        try:
            told = ModelRecord.from_plain(record, structure["class_names"] or ())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"The checkpoint's record of its normalisation is damaged ({error!r}).") from error
        backbone.set_record(told)


def built_as(backbone: Backbone, tokens: Mapping[str, Any] | None) -> str:
    """Return what a checkpoint says in ``config`` of how its model is built; readers compare it with what they build.

    A version that does not know token reduction passes over ``tokens`` in the hyperparameters and builds a model that
    runs with all tokens; as ``config`` names them too, it refuses the checkpoint instead.

    Args:
        backbone: The model.
        tokens: The token reduction that it runs with, as plain values; None for all tokens.
    """
    return repr(backbone.config) + (f" with tokens {json.dumps(tokens, sort_keys=True)}" if tokens else "")


def backbone_options(structure: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that `build_backbone` takes: the configured ones and the input size."""
    return {**(structure["options"] or {}), "frames": structure["frames"], "size": structure["size"]}


def plain_state_dict(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the backbone's state dict in a checkpoint of a run."""
    tensors = state_dict_of(content, path)
    ours = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return ours or dict(tensors)
