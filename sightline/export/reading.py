"""Reading an exported model: ``model.json`` says how to build it, ``model.safetensors`` holds its weights.

Folders may come from anybody, so nothing else is opened: neither file can hold code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sightline.backbones import Backbone, Reducer, build_backbone
from sightline.checkpoints.finite import check_finite
from sightline.checkpoints.structure import misfit_of, removed_units
from sightline.export.json_values import plain_config
from sightline.pruning.plan import FORMATS, PruningPlan
from sightline.run.paths import DESCRIPTION
from sightline.tokens.spec import TokenReduction
from sightline.types import ModelRecord

FORMAT_VERSION = 1
# Of a model that runs with a token reduction or in another number format: a reader that knows only version 1 would pass
# over what says so, and run it as a dense model in fp32.
REDUCED_FORMAT_VERSION = 2
WEIGHTS = "model.safetensors"
CHECKPOINT = "model.ckpt"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ExportError(ValueError):
    """An exported model that cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class ExportedModel:
    """A model that was read back, and how it runs: ``backbone(clips, reducer=reducer)``.

    Attributes:
        backbone: On the CPU, in evaluation mode, with its record.
        reducer: The token reduction that it was exported with; None where it runs with all tokens.
    """

    backbone: Backbone
    reducer: Reducer | None


def load_exported(folder: str | Path) -> ExportedModel:
    """Build the model of an exported folder, with its weights.

    Raises:
        FileNotFoundError: If the folder or one of its two files is not there.
        ExportError: If a file is damaged or was changed, or has another format than this version reads.
        CheckpointError: If the weights are not finite.
    """
    folder = Path(folder)
    description = read_description(folder)
    check_runnable(number_format(description))
    tokens = token_reduction(description)
    tensors = _read_weights(folder, description)
    backbone = _build(folder, description, tensors)
    check_finite(tensors, folder / WEIGHTS)
    backbone.load_state_dict(tensors)
    return ExportedModel(backbone.eval(), None if tokens is None else tokens.build())


def read_description(folder: str | Path) -> dict[str, Any]:
    """Return the content of an exported folder's ``model.json``.

    Raises:
        FileNotFoundError: If the folder or the file is not there.
        ExportError: If it is no JSON object, has another format version, or names a token reduction or number format
            that this version does not know.
    """
    path = _file(Path(folder), DESCRIPTION)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not whole JSON ({error}). Export the model again.") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int or version not in (FORMAT_VERSION, REDUCED_FORMAT_VERSION):
        raise ExportError(
            f"{path} has format version {version!r}, this version of Sightline reads {FORMAT_VERSION} and "
            f"{REDUCED_FORMAT_VERSION}. Export the model again, or use the version of Sightline that wrote it."
        )
    try:
        token_reduction(description)
        number_format(description)
    except ValueError as error:
        raise ExportError(f"{path}: {error} Use the version of Sightline that wrote it.") from error
    return description


def token_reduction(description: Mapping[str, Any]) -> TokenReduction | None:
    """Return the token reduction that a model runs with; None for all tokens, also where an older file is silent.

    Raises:
        ValueError: If this version does not know it.
    """
    tokens = description.get("tokens")
    return None if tokens is None else TokenReduction.from_plain(tokens)


def number_format(description: Mapping[str, Any]) -> str:
    """Return the number format that a model runs in; fp32 where an older file is silent.

    Raises:
        ValueError: If this version does not know it.
    """
    found = description.get("format", FORMATS[0])
    if found not in FORMATS:
        raise ValueError(f"Unknown number format {found!r}; known are {', '.join(FORMATS)}.")
    return found


def check_runnable(format: str) -> None:
    """Raise ExportError where an export of this number format can neither be written nor run."""
    if format != FORMATS[0]:
        raise ExportError(f"Exports exist in {FORMATS[0]} only; {format} cannot be written or run yet.")


def exported_plan(description: Mapping[str, Any]) -> PruningPlan:
    """Return the plan that an exported model was made by.

    Raises:
        ExportError: If the description holds none that is consistent.
    """
    try:
        told = {key: description["plan"][key] for key in ("method", "score", "mode", "k", "seed")}
        layers, heads = removed_units(description["removed_layers"], description["removed_heads"])
        tokens, form = token_reduction(description), number_format(description)
        return PruningPlan(**told, removed_layers=layers, removed_heads=heads, tokens=tokens, format=form)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{DESCRIPTION} holds no plan of what was cut ({error}). Export the model again.") from error


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _file(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder. Expected an exported model, e.g. pruned/<plan_id>.")
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder} has no {name}, so it is not a whole exported model. Export it again.")
    return folder / name


def _read_weights(folder: Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensors, after checking that the file is the one that was written."""
    path = _file(folder, WEIGHTS)
    content = path.read_bytes()  # read once, so that what was checked is what is loaded
    digests = description.get("sha256")
    expected = digests.get(WEIGHTS) if isinstance(digests, dict) else None
    if expected != sha256(content):
        raise ExportError(
            f"{path} ({len(content)} bytes) was cut short or changed after it was exported: its SHA-256 is not the one "
            f"in {DESCRIPTION}. Copy or export it again."
        )
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise ExportError(f"{path} is not a whole safetensors file ({error}).") from error


def _build(folder: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Backbone:
    """Build the described model with random weights, if these tensors are its state dict."""
    path = folder / DESCRIPTION

    def build() -> Backbone:
        name, classes, options = (description[key] for key in ("name", "num_classes", "options"))
        return build_backbone(name, classes, options, layers, heads, description.get("interpreters"))

    try:
        layers, heads = removed_units(description["removed_layers"], description["removed_heads"])
        misfit = misfit_of(build, tensors)
        if misfit:
            raise ExportError(f"{folder / WEIGHTS} does not fit the model that {DESCRIPTION} describes: {misfit}.")
        with torch.random.fork_rng(devices=[]):  # random initialisation must not change what the caller draws next
            backbone = build()
        if plain_config(backbone.config) != description["config"]:
            raise ExportError(
                f"{path} was exported with another configuration than {description['name']} has in this version of "
                f"Sightline: {description['config']} there, {plain_config(backbone.config)} here."
            )
        backbone.set_record(_record(description))
        return backbone.to(DTYPES[description["dtype"]])
    except ExportError:
        raise
    except KeyError as error:
        raise ExportError(f"{path} lacks {error} or has an unknown value for it. Export the model again.") from error
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError, OverflowError) as error:
        raise ExportError(f"{path} describes no model that can be built: {error}") from error


def _record(description: Mapping[str, Any]) -> ModelRecord:
    return ModelRecord.from_plain({**description, **description["normalisation"]}, description["classes"])
