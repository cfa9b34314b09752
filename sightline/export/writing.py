"""Writing a smaller model as a folder that it can be used from without the run that made it.

    pruned/<plan_id>/model.safetensors   the weights
                     model.json          how to build the model, what was cut, what it was trained on
                     model.ckpt          the same weights as `train.py test --ckpt_path` takes them
                     model.pt2           on request: a program of torch.export that runs without Sightline
                     model.onnx          on request: likewise for ONNX runtimes

The folder is written under another name and renamed when it is whole (`sightline.run.whole_folder`).
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sightline.backbones import Backbone, build_backbone
from sightline.backbones.contract.reducer import ReductionPoints
from sightline.backbones.parts.interpreters import interpreters_of
from sightline.checkpoints.files import file_content
from sightline.checkpoints.structure import describe_misfit
from sightline.checkpoints.trained import built_as
from sightline.export.json_values import as_json, plain, plain_config
from sightline.export.reading import (
    CHECKPOINT,
    DTYPES,
    FORMAT_VERSION,
    REDUCED_FORMAT_VERSION,
    WEIGHTS,
    ExportError,
    check_runnable,
    load_exported,
    read_description,
    sha256,
)
from sightline.export.runtimes import check_programs, check_tokens_of_programs, write_programs
from sightline.pruning.plan import FORMATS, PruningPlan
from sightline.run.paths import DESCRIPTION
from sightline.run.whole_folder import whole_folder

__all__ = ["ExportError", "export_model", "load_exported", "read_description"]


def export_model(
    backbone: Backbone,
    folder: str | Path,
    *,
    name: str,
    options: Mapping[str, Any],
    plan: PruningPlan,
    provenance: Mapping[str, Any],
    scores: Mapping[Any, Any] | None = None,
    sampling: Mapping[str, Any],
    hyper_parameters: Mapping[str, Any] | None = None,
    programs: Sequence[str] = (),
    ranking: Sequence[int] | None = None,
) -> Path:
    """Write a pruned (or whole) model to a folder, replacing an earlier export there once the new one is whole.

    Args:
        backbone: The model, already without what the plan removes.
        folder: Where to write it, ``.../pruned/<plan_id>``.
        name: Registered name of the backbone.
        options: Its options, as `build_backbone` took them.
        plan: What was removed and why, and which tokens the model runs with.
        provenance: Where it comes from: run, data, table of scores.
        scores: Mean score by layer or head, if a ranking was made.
        sampling: How frames are taken from a video.
        hyper_parameters: What Lightning builds the module of ``model.ckpt`` from; plain values only.
        programs: What else to write: ``torch_export`` (``model.pt2``), ``onnx`` (``model.onnx``).
        ranking: The full model's removable layers, the least relevant first, if all were ranked.

    Returns:
        The folder.

    Raises:
        ValueError: If name, options and plan do not describe the backbone, if it cannot run with the plan's tokens or
            number format, if something to be stored is not a plain value, if a program cannot be made, or if the folder
            holds something other than an export.
    """
    check_runnable(plan.format)
    _check_tokens(backbone, plan, programs)
    described = _describe(backbone, name, options, plan)
    described |= {
        key: as_json(plain(value, key))
        for key, value in (("sampling", sampling), ("provenance", provenance), ("scores", scores))
    }
    described["ranking"] = None if ranking is None else [int(layer) for layer in ranking]
    check_programs(programs)
    checkpoint = _checkpoint(backbone, plan, hyper_parameters)
    folder = Path(folder)
    with whole_folder(folder, proof=DESCRIPTION) as partial:
        weights = safetensors.torch.save(_tensors(backbone), metadata={"format": "pt"})
        (partial / WEIGHTS).write_bytes(weights)
        (partial / CHECKPOINT).write_bytes(file_content(checkpoint))
        described["sha256"] = {WEIGHTS: sha256(weights)}
        described["programs"] = write_programs(
            backbone, partial, programs, None if plan.tokens is None else plan.tokens.build()
        )
        text = json.dumps(described, indent=2, allow_nan=False, ensure_ascii=False)
        (partial / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return folder


def _describe(backbone: Backbone, name: str, options: Mapping[str, Any], plan: PruningPlan) -> dict[str, Any]:
    """Return what ``model.json`` tells of the model itself, after checking that it can be built from that."""
    options = as_json(plain(options, "options"))
    _check_description(backbone, name, options, plan)
    record, spec = backbone.record, backbone.input_spec
    told = record.plain()
    dense = plan.tokens is None and plan.format == FORMATS[0]
    normalisation = {key: told.pop(key) for key in ("mean", "std")}
    return {
        "format_version": FORMAT_VERSION if dense else REDUCED_FORMAT_VERSION,
        "name": name,
        "family": backbone.family,
        "options": options,
        "config": plain_config(backbone.config),
        "num_classes": backbone.config.num_classes,
        "dtype": _dtype(backbone),
        "plan": {key: getattr(plan, key) for key in ("plan_id", "method", "score", "mode", "k", "seed")},
        "kept_layers": [info.index for info in backbone.layers],
        "removed_layers": list(plan.removed_layers),
        "kept_heads": [[info.index, site.name, list(site.heads)] for info in backbone.layers for site in info.sites],
        "removed_heads": [list(dataclasses.astuple(unit)) for unit in plan.removed_heads],
        "tokens": None if plan.tokens is None else plan.tokens.plain(),
        "interpreters": interpreters_of(backbone.reducer),
        "format": plan.format,
        "classes": list(record.class_names),
        "input": dataclasses.asdict(spec),
        "normalisation": normalisation,
        **told,
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in ("sightline", "torch", "torchvision", "safetensors")},
        },
    }


def _check_tokens(backbone: Backbone, plan: PruningPlan, programs: Sequence[str]) -> None:
    """Raise ValueError where the backbone cannot run with the plan's tokens, or a program would not."""
    if plan.tokens is None:
        return
    ReductionPoints(backbone, plan.tokens.build())  # its checks
    check_tokens_of_programs(programs, plan.tokens)


def _check_description(backbone: Backbone, name: str, options: Mapping[str, Any], plan: PruningPlan) -> None:
    """Raise ValueError where the model built from this description would be another one than the backbone."""
    config = backbone.config
    with torch.random.fork_rng(devices=[]):  # exporting must not change what the caller draws next
        twin = build_backbone(
            name,
            config.num_classes,
            options,
            plan.removed_layers,
            plan.removed_heads,
            interpreters_of(backbone.reducer),
        )
    if twin.config != config:
        ours, theirs = plain_config(twin.config), plain_config(config)
        differ = [f"{key} {theirs.get(key)} (there {ours.get(key)})" for key in theirs if theirs[key] != ours.get(key)]
        raise ValueError(f"The backbone is not {name} with the options given: it has {', '.join(differ)}.")
    if twin.layers != backbone.layers:
        raise ValueError(
            f"The backbone is not what plan {plan.plan_id} leaves. The plan leaves {_units(twin)}; the backbone has "
            f"{_units(backbone)}. Pass the model made by without() and without_heads() of the same plan."
        )
    misfit = describe_misfit(twin.state_dict(), backbone.state_dict())
    if misfit:
        raise ValueError(f"The backbone's state dict is not that of {name} after plan {plan.plan_id}: {misfit}.")
    names = backbone.record.class_names
    if names and len(names) != config.num_classes:
        raise ValueError(f"The model has {config.num_classes} classes, but its record names {len(names)}.")


def _units(backbone: Backbone) -> str:
    layers = backbone.layers
    return f"layers {' '.join(str(info.index) for info in layers)} with {len(backbone.units('heads'))} heads"


def _dtype(backbone: Backbone) -> str:
    """Return the name of the one floating-point type of the weights."""
    found = {tensor.dtype for tensor in backbone.state_dict().values() if tensor.is_floating_point()}
    names = [name for name, dtype in DTYPES.items() if dtype in found]
    if len(found) != 1 or not names:
        raise ValueError(
            f"Expected weights of one type out of {', '.join(DTYPES)}, got {', '.join(sorted(map(str, found)))}. "
            "Convert the backbone with .to(dtype) first."
        )
    return names[0]


def _tensors(backbone: Backbone, prefix: str = "") -> dict[str, Tensor]:
    """Return the state dict on the CPU, every tensor with memory of its own (safetensors refuses shared memory)."""
    return {
        prefix + key: value.detach().to("cpu", copy=True).contiguous() for key, value in backbone.state_dict().items()
    }


def _checkpoint(backbone: Backbone, plan: PruningPlan, hyper_parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what Lightning's ``load_from_checkpoint`` and ``--ckpt_path`` take; plain values and tensors only.

    There is no ``loops``: an empty one makes the trainer fail, a missing one is passed over.
    """
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": _version("lightning"),
        "state_dict": _tensors(backbone, "backbone."),
        "record": plain(backbone.record.plain(), "record"),
    }
    if plan.tokens is not None:
        checkpoint["config"] = built_as(backbone, plan.tokens.plain())
    if hyper_parameters is not None:
        checkpoint["hyper_parameters"] = plain(hyper_parameters, "hyper_parameters")
    return checkpoint


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
