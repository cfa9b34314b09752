"""Reading weights that other people saved. Files are untrusted: only tensors and plain containers are ever loaded."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sightline.backbones.base import Backbone

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class LoadReport:
    """What was taken over from a checkpoint.

    Attributes:
        path: The file.
        loaded: Number of tensors taken over.
        left_out: Names of the file's tensors that were not (the classifier of another set of classes).
        fresh: Names of the model's tensors that keep their random initialisation.
    """

    path: Path
    loaded: int
    left_out: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        text = f"Took over {self.loaded} tensors from {self.path}."
        if self.left_out:
            text += f" Left out: {', '.join(self.left_out)}."
        if self.fresh:
            text += f" Freshly initialised: {', '.join(self.fresh)}."
        return text


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a file of torch.save or safetensors, on the CPU, without running anything that it may hold.

    Raises:
        CheckpointError: If it is not a local file, is cut short, or holds more than tensors and plain containers.
    """
    if "://" in str(path):
        raise CheckpointError(f"{path} is an address. Download the file, check where it comes from, and pass its path.")
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}).") from error
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path} holds more than tensors and plain containers, or is damaged, and was not loaded, because such a "
            f"file can run any code ({first}). Save a plain state dict instead."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a whole checkpoint file ({first}).") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state dict.")
    return content


def plain_state_dict(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint's content: as it is, or below ``state_dict`` with ``backbone.`` cut off."""
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()) or not tensors:
        raise CheckpointError(
            f"{path} holds no state dict (a mapping of names to tensors); its keys are {', '.join(list(content)[:5])}."
        )
    ours = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return ours or dict(tensors)


def load_weights(backbone: Backbone, path: str | Path) -> LoadReport:
    """Load a checkpoint into a backbone; the classifier is left out where the number of classes differs.

    Raises:
        CheckpointError: If the file cannot be read or holds another architecture; the backbone is then unchanged.
    """
    tensors = plain_state_dict(read_checkpoint(path), path)
    own = backbone.state_dict()
    classifier = set(backbone.classifier_keys())
    fits = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k not in fits and k not in classifier]
    unknown = [k for k in tensors if k not in own]
    if missing or unknown:
        raise CheckpointError(_mismatch(backbone, path, tensors, missing, unknown))
    left_out = tuple(k for k in tensors if k not in fits)
    if left_out:  # never half a classifier
        fits = {k: v for k, v in fits.items() if k not in classifier}
        left_out = tuple(k for k in tensors if k in classifier)
    backbone.load_state_dict(fits, strict=False)
    backbone.set_record(replace(backbone.record, source=Path(path).name))
    report = LoadReport(Path(path), len(fits), left_out, tuple(k for k in own if k not in fits))
    log.info("%s", report)
    return report


def _mismatch(
    backbone: Backbone, path: str | Path, tensors: Mapping[str, Tensor], missing: list[str], unknown: list[str]
) -> str:
    own = backbone.state_dict()
    reasons = []
    wrong = [k for k in missing if k in tensors]
    absent = [k for k in missing if k not in tensors]
    if wrong:
        got, expected = tuple(tensors[wrong[0]].shape), tuple(own[wrong[0]].shape)
        reasons.append(f"{len(wrong)} tensors have another shape, e.g. {wrong[0]} {got}, expected {expected}")
    if absent:
        reasons.append(f"{len(absent)} of the model's {len(own)} tensors are missing, e.g. {', '.join(absent[:3])}")
    if unknown:
        reasons.append(f"{len(unknown)} of the file's {len(tensors)} are unknown, e.g. {', '.join(unknown[:3])}")
    return (
        f"{path} does not fit {backbone.family} as configured: {'; '.join(reasons)}. "
        "Choose the backbone (and its options) that the checkpoint was made with."
    )
