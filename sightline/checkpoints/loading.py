"""Loading weights that other people saved, in any form that they own, into a backbone."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from torchvision.models import WeightsEnum

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.registry import VARIANTS
from sightline.checkpoints.files import (
    CheckpointError,
    Content,
    download,
    read_checkpoint,
    read_content,
)
from sightline.checkpoints.finite import check_finite
from sightline.checkpoints.pretraining import PretrainingInfo
from sightline.checkpoints.source import KNOWN, Source, recognise
from sightline.types import ModelRecord

__all__ = ["TORCHVISION", "CheckpointError", "LoadReport", "load_weights", "read_checkpoint"]

log = logging.getLogger(__name__)

TORCHVISION = "torchvision"
# What a token reduction has learned, see `Backbone.reducer`: other weights than the model's own, which may lack it.
LEARNED = "reducer."
# What a model computes itself: indices, masks and counters, which some programs save and others do not.
COMPUTED = re.compile(r"(^|\.)(relative_position_index|attn_mask|position_ids|num_batches_tracked)$")


@dataclass(frozen=True)
class LoadReport:
    """What was taken over from a checkpoint.

    Attributes:
        path: The file.
        form: What the file is, in words.
        loaded: Number of tensors taken over.
        left_out: Names of the classifier's tensors in the file, where it belongs to other classes.
        fresh: Names of the model's tensors that keep their random initialisation.
        unused: Names of the file's other tensors that were not taken over.
        interpolated: One sentence for each tensor that was fitted to another number of frames or another size.
        pretraining: What is known of how the weights were trained.
        stated: Which of these facts the file says itself; the others are usual for its form.
    """

    path: Path
    form: str
    loaded: int
    left_out: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    interpolated: tuple[str, ...]
    pretraining: PretrainingInfo
    stated: PretrainingInfo

    def __str__(self) -> str:
        lines = [f"{self.path} is {_article(self.form)}. Took over {self.loaded} tensors."]
        if self.left_out:
            lines.append(f"Left out: {', '.join(self.left_out)} (the classifier of other classes).")
        if self.fresh:
            lines.append(f"Freshly initialised: {_grouped(self.fresh)}.")
        if self.unused:
            lines.append(f"In the file and not used: {_grouped(self.unused)}.")
        lines += self.interpolated
        lines.append(self._training())
        return "\n  ".join(lines)

    def _training(self) -> str:
        facts = self.pretraining
        clip = f"{facts.frames or 'an unknown number of'} frames, stride {facts.stride or 'unknown'}"
        if facts.mean is None or facts.std is None:
            return f"Trained on {clip}; the normalisation is not known and stays the model's."
        usual = "" if self.stated.mean and self.stated.std else " (usual for this form; the file does not say)"
        mean, std = (" ".join(f"{value:g}" for value in triple) for triple in (facts.mean, facts.std))
        return f"Trained on {clip}; pixels are normalised by mean {mean} and deviation {std}{usual}."


def load_weights(backbone: Backbone, weights: str | Path, name: str | None = None) -> LoadReport:
    """Load a checkpoint into a backbone; the classifier is left out where the classes differ.

    Args:
        backbone: The model; it also takes over the checkpoint's normalisation, frames, stride and classes as its
            record.
        weights: A file, a folder, or ``torchvision`` for a download.
        name: Registered name of the backbone, needed for a download only.

    Raises:
        CheckpointError: If the weights cannot be read, belong to another architecture or are not finite; the backbone
            is then unchanged.
    """
    content = download(_of_torchvision(name)) if str(weights) == TORCHVISION else read_content(weights)
    path = content.path
    source = recognise(content) or _under_our_names(backbone, content)
    _check_architecture(backbone, path, source)
    try:
        tensors, interpolated = backbone.adapt(source.tensors)
    except (ValueError, RuntimeError, IndexError) as error:
        raise CheckpointError(f"{path}, {_article(source.form)}, cannot be fitted to the model: {error}") from error

    fits, left_out = _fitting(backbone, path, source, tensors)
    check_finite(fits, path)
    backbone.load_state_dict(fits, strict=False)
    backbone.set_record(_record(backbone.record, path, source))
    own = backbone.state_dict()
    report = LoadReport(
        path,
        source.form,
        len(fits),
        left_out,
        tuple(key for key in own if key not in fits and not COMPUTED.search(key)),
        (*(key for key in tensors if key not in own), *source.dropped),
        tuple(interpolated),
        source.pretraining,
        source.stated,
    )
    log.info("%s", report)
    return report


def _fitting(
    backbone: Backbone, path: Path, source: Source, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors to load, and the names of the classifier's if it is left out.

    Raises:
        CheckpointError: If a tensor of the model is not among them, or one of the file has no place in the model.
    """
    own, classifier = backbone.state_dict(), backbone.classifier_keys()
    fits = {key: tensor for key, tensor in tensors.items() if key in own and own[key].shape == tensor.shape}
    missing = [key for key in own if key not in fits and key not in (*classifier, *source.lacks)]
    missing = [key for key in missing if key in tensors or not COMPUTED.search(key)]
    unknown = [key for key in tensors if key not in own and not COMPUTED.search(key)]
    if not any(key.startswith(LEARNED) for key in tensors):
        missing = [key for key in missing if not key.startswith(LEARNED)]
    if not any(key.startswith(LEARNED) for key in own):
        unknown = [key for key in unknown if not key.startswith(LEARNED)]
    if missing or unknown:
        raise CheckpointError(_mismatch(backbone, path, source.form, tensors, missing, unknown))
    whole = all(key in fits for key in classifier)
    if whole and not _other_classes(backbone.record.class_names, source.pretraining.classes):
        return fits, ()
    # Never half a classifier.
    left_out = tuple(key for key in classifier if key in tensors)
    return {key: tensor for key, tensor in fits.items() if key not in classifier}, left_out


def _of_torchvision(name: str | None) -> WeightsEnum:
    known = {variant: entry.torchvision for variant, entry in VARIANTS.items() if entry.torchvision is not None}
    if name not in known:
        raise CheckpointError(
            f"torchvision has no weights for {name or 'a backbone of no name'}, only for {', '.join(known)}. Choose "
            "one of these, or pass the path of a file."
        )
    return known[name]


def _under_our_names(backbone: Backbone, content: Content) -> Source:
    """Take a state dict of unknown form for one of this very model, if most names agree."""
    common = set(content.tensors) & set(backbone.state_dict())
    if 2 * len(common) < len(content.tensors):
        raise CheckpointError(
            f"{content.path} is in no known form; its names are {', '.join(list(content.tensors)[:3])}, ... {KNOWN}"
        )
    return Source("state dict under the model's own names", None, dict(content.tensors))


def _check_architecture(backbone: Backbone, path: Path, source: Source) -> None:
    """Raise CheckpointError where what is known of the source, besides its shapes, rules the model out."""
    if source.family not in (None, backbone.family):
        fitting = [name for name, variant in VARIANTS.items() if getattr(variant.family, "family", "") == source.family]
        raise CheckpointError(
            f"{path} is {_article(source.form)} of the family {source.family}; the model is {backbone.family}. "
            f"Choose one of the backbones {', '.join(fitting)}."
        )
    infos = {info.index: info for info in backbone.layers}
    layers = sorted(set(source.removed_layers) & set(infos))
    heads = sorted(set(source.removed_heads) & set(backbone.units("heads")))
    if layers or heads:
        cut = [f"layers {' '.join(map(str, layers))}"] if layers else []
        cut += [", ".join(map(str, heads))] if heads else []
        told = [[unit.layer, unit.site, unit.head] for unit in sorted(source.removed_heads)]
        raise CheckpointError(
            f"{path} holds a smaller model, without {' and '.join(cut)}, which the model here has. To use it as it is, "
            f"give its .ckpt as --ckpt_path; to start from it, set the model's removed_layers: "
            f"{sorted(source.removed_layers)} and removed_heads: {told} as well."
        )
    # Only where nothing was cut out does the number of heads say how the model was built.
    sites = {len(site.heads) for info in infos.values() for site in info.sites}
    wanted = source.pretraining.heads
    if wanted and not source.removed_heads and len(sites) == 1 and wanted not in sites:
        raise CheckpointError(
            f"{path} is {_article(source.form)} with {wanted} attention heads per layer; the model has "
            f"{sites.pop()}. The shapes agree, but the results would be wrong. Set the backbone's option heads."
        )


def _other_classes(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether both are known and differ, whatever the spelling (``air drumming``, ``Air_Drumming``)."""
    a, b = ([re.sub(r"[\W_]", "", name).casefold() for name in names] for names in (ours, theirs))
    return bool(a) and bool(b) and a != b


def _record(record: ModelRecord, path: Path, source: Source) -> ModelRecord:
    facts = source.pretraining
    known = facts.mean is not None and facts.std is not None
    return replace(
        record,
        mean=facts.mean if known and facts.mean else record.mean,
        std=facts.std if known and facts.std else record.std,
        source=f"{path.name} ({source.form})",
        source_frames=facts.frames,
        source_stride=facts.stride,
        source_classes=facts.classes,
    )


def _mismatch(
    backbone: Backbone,
    path: Path,
    form: str,
    tensors: Mapping[str, Tensor],
    missing: Collection[str],
    unknown: Collection[str],
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
        first = ", ".join(list(unknown)[:3])
        reasons.append(f"{len(unknown)} of the file's {len(tensors)} are unknown, e.g. {first}")
    return (
        f"{path}, {_article(form)}, does not fit {backbone.family} as configured: {'; '.join(reasons)}. "
        "Choose the backbone (and its options) that the checkpoint was made with."
    )


def _article(form: str) -> str:
    return f"{'an' if form[0].lower() in 'aeiou' else 'a'} {form}"


def _grouped(names: Collection[str]) -> str:
    """List names; those that differ in their numbers only stand together."""
    groups = Counter(re.sub(r"\d+", "*", name) for name in names)
    first = {re.sub(r"\d+", "*", name): name for name in names}
    return ", ".join(f"{group} ({count})" if count > 1 else first[group] for group, count in groups.items())
