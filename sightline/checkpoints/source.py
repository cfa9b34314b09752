"""Telling what a checkpoint is, and bringing it under our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sightline.checkpoints.files import CheckpointError, Content
from sightline.checkpoints.forms import FOREIGN, FORMS, Form, Renames, Tensors
from sightline.checkpoints.pretraining import NOTHING, PretrainingInfo, stated_pretraining
from sightline.checkpoints.structure import removed_units
from sightline.types import Unit

KNOWN = f"Known forms are: {', '.join(form.name for form in FORMS)}, and what Sightline itself writes."


@dataclass(frozen=True)
class Source:
    """A checkpoint under our names.

    Attributes:
        form: What it is, in words.
        family: Family that it belongs to; None where only a comparison can tell.
        tensors: Its state dict under the family's names.
        pretraining: What is known of how it was trained.
        stated: Which of these facts the file says itself.
        dropped: Names in the file of what the model has no use for.
        lacks: The model's tensors that such a file does not hold and that start afresh.
        removed_layers: Layers that were cut out of its model.
        removed_heads: Heads that were cut out.
    """

    form: str
    family: str | None
    tensors: Tensors
    pretraining: PretrainingInfo = NOTHING
    stated: PretrainingInfo = NOTHING
    dropped: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    removed_layers: tuple[int, ...] = ()
    removed_heads: tuple[Unit, ...] = ()


def recognise(content: Content) -> Source | None:
    """Tell what a checkpoint is and bring it under our names; None where its form is unknown.

    Raises:
        CheckpointError: If it is of a form that is known and cannot be used.
    """
    stated = stated_pretraining(content)
    own = _own(content, stated)
    if own is not None:
        return own
    form = _form_of(content.tensors)
    if form is None:
        for mark, words in FOREIGN:
            if any(re.search(mark, name) for name in content.tensors):
                raise CheckpointError(f"{content.path} is {words}; no backbone here takes it. {KNOWN}")
        return None
    dropped = tuple(name for name in content.tensors if form.dropped and re.search(form.dropped, name))
    kept = {name: tensor for name, tensor in content.tensors.items() if name not in set(dropped)}
    tensors = form.finish(_renamed(kept, form.renames))
    lacks = () if "head.weight" in tensors else form.headless
    facts = stated.over(form.measure(tensors)).over(form.pretraining)
    return Source(form.name, form.family, tensors, facts, stated, dropped, lacks)


def _own(content: Content, stated: PretrainingInfo) -> Source | None:
    """Recognise what this package wrote: a run's checkpoint or an exported model."""
    structure, tensors = content.beside.get("hyper_parameters"), dict(content.tensors)
    dropped: tuple[str, ...] = ()
    if "model.json" in content.files:
        structure, name = content.files["model.json"], "exported Sightline model"
    elif isinstance(structure, Mapping) and "backbone" in structure:
        name = "checkpoint of a Sightline run"
        dropped = tuple(key for key in tensors if not key.startswith("backbone."))
        tensors = {key.removeprefix("backbone."): tensors[key] for key in tensors if key not in dropped}
    else:
        return None
    form = _form_of(tensors)  # some form has our names, whatever the family
    try:
        layers, heads = removed_units(structure.get("removed_layers") or (), structure.get("removed_heads") or ())
    except CheckpointError as error:
        raise CheckpointError(
            f"{content.path} does not say correctly what was cut out of its model ({error})."
        ) from error
    return Source(name, form.family if form else None, tensors, stated, stated, dropped, (), layers, heads)


def _form_of(names: Iterable[str]) -> Form | None:
    names = list(names)
    for form in FORMS:
        if all(any(re.search(mark, name) for name in names) for mark in form.marks):
            return form
    return None


def _renamed(tensors: Mapping[str, Tensor], renames: Renames) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
