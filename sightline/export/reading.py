"""Reading an exported model: ``model.json`` says how to build it, ``model.safetensors`` holds its weights.

Folders may come from anybody, so nothing else is opened: neither file can hold code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sightline.backbones import Backbone, build_backbone
from sightline.checkpoints.trained import describe_misfit
from sightline.export.json_values import plain_config
from sightline.run.paths import DESCRIPTION
from sightline.types import ModelRecord, Unit

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
CHECKPOINT = "model.ckpt"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ExportError(ValueError):
    """An exported model that cannot be used; the message says why in one line."""


def load_exported(folder: str | Path) -> Backbone:
    """Build the model of an exported folder, with its weights and its record, on the CPU in evaluation mode.

    Raises:
        FileNotFoundError: If the folder or one of its two files is not there.
        ExportError: If a file is damaged or was changed, or has another format than this version reads.
    """
    folder = Path(folder)
    description = read_description(folder)
    tensors = _read_weights(folder, description)
    backbone = _build(folder, description)
    misfit = describe_misfit(backbone.state_dict(), tensors)
    if misfit:
        raise ExportError(f"{folder / WEIGHTS} does not fit the model that {DESCRIPTION} describes: {misfit}.")
    backbone.load_state_dict(tensors)
    return backbone.eval()


def read_description(folder: str | Path) -> dict[str, Any]:
    """Return the content of an exported folder's ``model.json``.

    Raises:
        FileNotFoundError: If the folder or the file is not there.
        ExportError: If it is no JSON object or has another format version.
    """
    path = _file(Path(folder), DESCRIPTION)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not whole JSON ({error}). Export the model again.") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {version!r}, this version of Sightline reads {FORMAT_VERSION}. "
            "Export the model again, or use the version of Sightline that wrote it."
        )
    return description


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


def _build(folder: Path, description: Mapping[str, Any]) -> Backbone:
    """Build the described model with random weights."""
    path = folder / DESCRIPTION
    try:
        heads = tuple(Unit(int(layer), str(site), int(head)) for layer, site, head in description["removed_heads"])
        layers = tuple(int(layer) for layer in description["removed_layers"])
        with torch.random.fork_rng(devices=[]):  # random initialisation must not change what the caller draws next
            backbone = build_backbone(
                description["name"], description["num_classes"], description["options"], layers, heads
            )
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
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ExportError(f"{path} describes no model that can be built: {error}") from error


def _record(description: Mapping[str, Any]) -> ModelRecord:
    return ModelRecord.from_plain({**description, **description["normalisation"]}, description["classes"])
