"""What a file says of a model's structure, checked: files may come from anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.checkpoints.files import CheckpointError
from sightline.types import Unit

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
    "interpreters",
)
MOST_BUFFER_BYTES = 2**31
"""Of what a model computes itself and no file holds: tables of positions and of windows."""


def structure_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's content says of the model's structure: every key of `STRUCTURE`.

    Raises:
        CheckpointError: If it does not say which backbone it holds, or says something that cannot be.
    """
    stored = content.get("hyper_parameters")
    if not isinstance(stored, Mapping) or stored.get("backbone") is None:
        raise CheckpointError(
            "The checkpoint does not say which backbone it holds, so it was not saved by a run. To start from other "
            "weights, pass them as --model.weights and not as --ckpt_path."
        )
    found = {key: stored.get(key) for key in STRUCTURE}
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("frames", "size", "num_classes"), (int,)),
        **dict.fromkeys(("options", "tokens", "interpreters"), (dict, type(None))),
        **dict.fromkeys(("class_names", "removed_layers", "removed_heads"), (list, tuple, type(None))),
        "backbone": (str,),
    }
    for key, allowed in kinds.items():
        if not isinstance(found[key], allowed) or isinstance(found[key], bool):
            expected = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
            raise CheckpointError(f"The checkpoint says that its {key} is {found[key]!r}; expected {expected}.")
    removed_units(found["removed_layers"] or (), found["removed_heads"] or ())
    names = found["class_names"]
    if not all(isinstance(name, str) for name in names or ()):
        raise CheckpointError(f"The checkpoint says that its class_names are {names!r}; expected text.")
    if names and len(names) != found["num_classes"]:
        raise CheckpointError(
            f"The checkpoint names {len(names)} classes, but says that it has {found['num_classes']}."
        )
    return found


def removed_units(layers: Any, heads: Any) -> tuple[tuple[int, ...], tuple[Unit, ...]]:
    """Return which layers and heads were cut out of a model, as a file's ``removed_layers`` and ``removed_heads`` say.

    Raises:
        CheckpointError: If an entry is no layer's number, or not a head's layer, site and number.
    """
    for key, entries in (("removed_layers", layers), ("removed_heads", heads)):
        if not isinstance(entries, list | tuple):
            raise CheckpointError(f"Expected a list of what was cut out as {key}, got {entries!r}.")
    for layer in layers:
        if not _is_index(layer):
            raise CheckpointError(f"Expected numbers of layers, from 0, in removed_layers, got {layer!r}.")
    for head in heads:
        if not (
            isinstance(head, list | tuple)
            and len(head) == 3
            and _is_index(head[0])
            and isinstance(head[1], str)
            and _is_index(head[2])
        ):
            raise CheckpointError(
                f"Expected heads as [layer, site, head] in removed_heads, e.g. [3, attention, 1], got {head!r}."
            )
    return tuple(layers), tuple(Unit(*head) for head in heads)


def misfit_of(build: Callable[[], Backbone], tensors: Mapping[str, Tensor]) -> str:
    """Say in one line how a state dict differs from that of a model; empty where it fits.

    The model is built without memory for this, so a description that asks for more than there is costs nothing.

    Args:
        build: Builds the model.
        tensors: The state dict.

    Raises:
        ValueError: If there is no such model, or it would fill the memory with what no file holds.
    """
    with torch.device("meta"):
        outline = build()
    expected = outline.state_dict()
    own = sum(b.numel() * b.element_size() for b in outline.buffers())
    if own > MOST_BUFFER_BYTES:
        raise ValueError(
            f"The model's own tables would take {own / 2**30:.1f} GiB, for clips of {outline.input_spec}. No model "
            "that could be meant is so large."
        )
    return describe_misfit(expected, tensors)


def describe_misfit(expected: Mapping[str, Tensor], came: Mapping[str, Tensor]) -> str:
    """Say in one line how a state dict differs from the one expected; empty where it fits."""
    shapes = [
        f"{name} is {tuple(came[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in came and came[name].shape != expected[name].shape
    ]
    kinds = [
        f"{name} holds {came[name].dtype}"
        for name in expected
        if name in came and expected[name].is_floating_point() and not came[name].is_floating_point()
    ]
    parts = [
        _few("missing", [name for name in expected if name not in came]),
        _few("not expected", [name for name in came if name not in expected]),
        _few("of another shape", shapes),
        _few("of another kind of number", kinds),
    ]
    return "; ".join(part for part in parts if part)


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _few(what: str, names: list[str], most: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{more})"
