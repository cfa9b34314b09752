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
from sightline.run.paths import RunFolder
from sightline.types import ModelRecord, Unit

# What a checkpoint must say of the model's structure for it to be built again.
STRUCTURE = (
    "backbone",
    "frames",
    "size",
    "options",
    "num_classes",
    "class_names",
    "removed_layers",
    "removed_heads",
    "tokens",
)


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
    with torch.random.fork_rng(devices=[]):  # random initialisation must not change what the caller draws next
        backbone = build_structure(structure)
    check_and_record(backbone, content, structure)
    tensors = plain_state_dict(content, path)
    misfit = describe_misfit(backbone.state_dict(), tensors)
    if misfit:
        raise CheckpointError(f"{path} does not fit the {structure['backbone']} that it says it holds: {misfit}.")
    check_finite(tensors, path)
    backbone.load_state_dict(tensors)
    return backbone.float().eval().requires_grad_(False)


def structure_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's content says of the model's structure: every key of `STRUCTURE`.

    Raises:
        CheckpointError: If it does not say which backbone it holds.
    """
    stored = content.get("hyper_parameters")
    if not isinstance(stored, Mapping) or stored.get("backbone") is None:
        raise CheckpointError(
            "The checkpoint does not say which backbone it holds, so it was not saved by a run. To start from other "
            "weights, pass them as --model.weights and not as --ckpt_path."
        )
    return {key: stored.get(key) for key in STRUCTURE}


def build_structure(structure: Mapping[str, Any]) -> Backbone:
    """Build a backbone with random weights from the values of `STRUCTURE`; class names become part of its record."""
    heads = tuple(Unit(int(layer), str(site), int(head)) for layer, site, head in structure["removed_heads"] or ())
    backbone = build_backbone(
        structure["backbone"],
        structure["num_classes"],
        backbone_options(structure),
        tuple(structure["removed_layers"] or ()),
        heads,
    )
    names = tuple(structure["class_names"] or ())
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
        backbone.set_record(ModelRecord.from_plain(record, structure["class_names"] or ()))


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


def describe_misfit(expected: Mapping[str, Tensor], came: Mapping[str, Tensor]) -> str:
    """Say in one line how a state dict differs from the one expected in names and shapes; empty where it fits."""
    shapes = [
        f"{name} is {tuple(came[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in came and came[name].shape != expected[name].shape
    ]
    parts = [
        _few("missing", [name for name in expected if name not in came]),
        _few("not expected", [name for name in came if name not in expected]),
        _few("of another shape", shapes),
    ]
    return "; ".join(part for part in parts if part)


def _few(what: str, names: list[str], most: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{more})"
