"""What a checkpoint says of how its weights were trained, in the words of each kind of file.

Files are untrusted and often incomplete: a value that is not of the expected kind counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from sightline.checkpoints.files import Content

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PretrainingInfo:
    """How weights were trained; None or empty where it is not known.

    Attributes:
        mean: Per-channel mean of the [0, 1] pixels.
        std: Per-channel standard deviation of the [0, 1] pixels.
        frames: Frames per clip.
        stride: Distance of these frames in the video.
        classes: Names of the classes in the order of the logits.
        heads: Attention heads per layer, where the shapes of the tensors do not tell.
    """

    mean: Triple | None = None
    std: Triple | None = None
    frames: int | None = None
    stride: int | None = None
    classes: tuple[str, ...] = ()
    heads: int | None = None

    def over(self, other: PretrainingInfo) -> PretrainingInfo:
        """Return these facts, completed by others where they say nothing."""
        return PretrainingInfo(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)})


NOTHING = PretrainingInfo()


def stated_pretraining(content: Content) -> PretrainingInfo:
    """Return what a checkpoint says itself, in the file or in the JSON files of its folder."""
    if "model.json" in content.files:
        return _of_export(content.files["model.json"])
    if "record" in content.beside:
        return _of_run(content.beside)
    config = content.files.get("config.json", {})
    processors = [
        content.files.get(name, {}) for name in ("preprocessor_config.json", "video_preprocessor_config.json")
    ]
    return _of_cfg(content.beside.get("cfg")).over(_of_hugging_face(config, processors[0] or processors[1]))


def _of_export(description: Mapping[str, Any]) -> PretrainingInfo:
    normalisation, size = _mapping(description.get("normalisation")), _mapping(description.get("input"))
    return PretrainingInfo(
        mean=_triple(normalisation.get("mean")),
        std=_deviation(normalisation.get("std")),
        frames=_count(size.get("frames")),
        classes=_names(description.get("classes")),
    )


def _of_run(checkpoint: Mapping[str, Any]) -> PretrainingInfo:
    record, structure = _mapping(checkpoint.get("record")), _mapping(checkpoint.get("hyper_parameters"))
    return PretrainingInfo(
        mean=_triple(record.get("mean")),
        std=_deviation(record.get("std")),
        frames=_count(structure.get("frames")),
        classes=_names(structure.get("class_names")),
    )


def _of_cfg(cfg: Any) -> PretrainingInfo:
    """Read the configuration that TimeSformer and PySlowFast store as YAML text."""
    if isinstance(cfg, str):
        try:
            cfg = yaml.safe_load(cfg)
        except (yaml.YAMLError, ValueError, RecursionError):
            return NOTHING
    data = _mapping(_mapping(cfg).get("DATA"))
    return PretrainingInfo(
        mean=_triple(data.get("MEAN")),
        std=_deviation(data.get("STD")),
        frames=_count(data.get("NUM_FRAMES")),
        stride=_count(data.get("SAMPLING_RATE")),
    )


def _of_hugging_face(config: Mapping[str, Any], processor: Mapping[str, Any]) -> PretrainingInfo:
    labels = _mapping(config.get("id2label"))
    names = _names([labels.get(str(index)) for index in range(len(labels))])
    if names == tuple(
        f"LABEL_{index}" for index in range(len(names))
    ):  # what transformers writes where nobody named any
        names = ()
    unscaled = processor.get("do_normalize") is False
    return PretrainingInfo(
        mean=(0.0, 0.0, 0.0) if unscaled else _triple(processor.get("image_mean")),
        std=(1.0, 1.0, 1.0) if unscaled else _deviation(processor.get("image_std")),
        frames=_count(config.get("num_frames")),
        classes=names,
        heads=_count(config.get("num_attention_heads")),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _triple(value: Any) -> Triple | None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])


def _deviation(value: Any) -> Triple | None:
    std = _triple(value)
    return std if std is not None and min(std) > 0 else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)
