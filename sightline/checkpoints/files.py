"""Reading the files that weights come in. They are untrusted: only tensors and plain values are ever loaded."""

from __future__ import annotations

import argparse
import io
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum

# Names under which training programs keep the state dict among other things.
CONTAINERS = ("state_dict", "model_state", "model", "module", "model_state_dict")
# Files of a folder: of weights, the first that is there; and of what is said about them.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
DESCRIPTIONS = ("model.json", "config.json", "preprocessor_config.json", "video_preprocessor_config.json")
# The only class allowed besides tensors and plain containers: command-line arguments, which VideoMAE's files hold. It
# is a bag of attributes, whose making runs no code of the file's; what is in the bag must be plain as well.
HARMLESS_CLASSES: list[Callable | tuple[Callable, str]] = [argparse.Namespace]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds.

    Attributes:
        path: The file.
        tensors: Its state dict, under the file's own names.
        beside: What else is in the file (epoch, cfg, hyper_parameters, ...).
        files: What the folder says about it, by the name of the JSON file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    beside: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_content(path: str | Path) -> Content:
    """Read a file of weights, or the folder of an exported or a Hugging Face model.

    Raises:
        CheckpointError: If there is no such file, if it is damaged, holds code, or holds no state dict.
    """
    path = Path(path) if "://" not in str(path) else path
    if isinstance(path, Path) and path.is_dir():
        path = _weight_file(path)
    content = read_checkpoint(path)
    path = Path(path)
    # A file of any other name only happens to lie beside these descriptions.
    names = [name for name in DESCRIPTIONS if path.name in WEIGHT_FILES and (path.parent / name).is_file()]
    files = {name: _read_json(path.parent / name) for name in names}
    tensors = state_dict_of(content, path)
    beside = {} if tensors is content else {key: value for key, value in content.items() if value is not tensors}
    if all(name.startswith("module.") for name in tensors):  # saved from inside DistributedDataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return Content(path, tensors, beside, files)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a file of torch.save or safetensors, on the CPU, without running anything that it may hold.

    Raises:
        CheckpointError: If it is not a local file, is cut short, or holds more than tensors and plain values.
    """
    if "://" in str(path):
        raise CheckpointError(f"{path} is an address. Download the file, check where it comes from, and pass its path.")
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS_CLASSES):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}).") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain containers, or is damaged, and was not loaded, because such a "
            f"file can run any code ({_refused(path, error)}). Save a plain state dict instead."
        ) from error
    except Exception as error:  # damaged bytes can fail at any step of reading, in any way
        raise CheckpointError(f"{path} is not a whole checkpoint file ({_first_line(error)}).") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state dict.")
    return content


def file_content(content: Mapping[str, Any]) -> memoryview:
    """Return the bytes that torch.save would write.

    To be written to a file by Python, for which a full disk is an OSError that says so. For PyTorch it is a
    RuntimeError of an unexpected position.
    """
    file = io.BytesIO()
    torch.save(content, file)
    return file.getbuffer()


def is_state_dict(candidate: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether something is a mapping of names to tensors, whose values are all there: not sparse, not quantised."""
    if not isinstance(candidate, Mapping) or not candidate:
        return False
    tensors = all(isinstance(key, str) and isinstance(value, Tensor) for key, value in candidate.items())
    return tensors and all(t.layout == torch.strided and not t.is_quantized for t in candidate.values())


def state_dict_of(content: Mapping[str, Any], path: str | Path) -> Mapping[str, Tensor]:
    """Return the state dict in a file's content: the whole, or what stands under one of the usual names.

    Raises:
        CheckpointError: If there is none.
    """
    for candidate in (content, *(content.get(name) for name in CONTAINERS)):
        if is_state_dict(candidate):
            return candidate
    keys = ", ".join(map(str, list(content)[:5]))
    raise CheckpointError(f"{path} holds no state dict (a mapping of names to tensors); its keys are {keys}.")


def download(weights: WeightsEnum) -> Content:
    """Fetch torchvision's weights, or take them from where an earlier download keeps them.

    Raises:
        CheckpointError: If they cannot be fetched.
    """
    try:
        tensors = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a full disk, a wrong hash: each fails in its own way
        raise CheckpointError(
            f"torchvision's weights {weights} could not be downloaded ({_first_line(error)}). Fetch {weights.url} on a "
            "machine with internet access and pass the file's path."
        ) from error
    return Content(Path(weights.url.rpartition("/")[2]), tensors)


def _weight_file(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"The folder {folder} has no {' and no '.join(WEIGHT_FILES)}, so it is neither an exported model nor a Hugging "
        "Face model in one file. Pass the file that holds the weights."
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}, which describes the weights, is not whole JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}, which describes the weights, holds no JSON object.")
    return content


def _refused(path: Path, error: Exception) -> str:
    """Name what in a pickle is not allowed; the file's instructions are listed for this and not run."""
    try:
        with torch.serialization.safe_globals(HARMLESS_CLASSES):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a file that can be listed
        names = []
    return f"it names {', '.join(sorted(names)[:3])}" if names else _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
