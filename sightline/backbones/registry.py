"""The backbones that can be asked for by name. A family registers here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torchvision.models import WeightsEnum
from torchvision.models.video import MViT_V2_S_Weights, Swin3D_B_Weights, Swin3D_S_Weights, Swin3D_T_Weights

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.families.mvit import MViT
from sightline.backbones.families.mvit_config import MViTConfig
from sightline.backbones.families.timesformer import TimeSformer, TimeSformerConfig
from sightline.backbones.families.video_swin import VideoSwin, VideoSwinConfig
from sightline.backbones.families.vit import ViT, ViTConfig
from sightline.backbones.limits import check_limits
from sightline.backbones.near_names import near_names
from sightline.backbones.parts.interpreters import Interpreters, InterpretersConfig
from sightline.backbones.parts.linear import take_over_linears
from sightline.types import ModelRecord, Unit

KINETICS = ModelRecord()
IMAGENET = ModelRecord(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Variant:
    """One named architecture.

    Attributes:
        family: The backbone class; built as ``family(config, record)``.
        config: Its configuration, of which options override single fields.
        record: What its released checkpoints were trained with.
        torchvision: torchvision's weights of this architecture, for ``weights: torchvision``.
    """

    family: Callable[[Any, ModelRecord], Backbone]
    config: Any
    record: ModelRecord = KINETICS
    torchvision: WeightsEnum | None = None


SWIN_DEMO = VideoSwinConfig(
    frames=8, size=64, patch=(2, 8, 8), width=48, depths=(2, 2, 2), heads=(2, 4, 8), window=(4, 2, 2), drop_path=0.0
)
TIMESFORMER_DEMO = TimeSformerConfig(frames=8, size=64, patch=16, width=64, depth=6, heads=4, drop_path=0.0)
VIT_DEMO = ViTConfig(frames=8, size=64, patch=(2, 8, 8), width=64, depth=6, heads=4, drop_path=0.0)
MVIT_DEMO = MViTConfig(
    frames=8, size=64, width=24, depths=(2, 3, 3), heads=(2, 4, 8), kv_stride=(1, 4, 4), drop_path=0.0, dropout=0.0
)

VARIANTS: dict[str, Variant] = {
    "video_swin_t": Variant(VideoSwin, VideoSwinConfig(depths=(2, 2, 6, 2)), IMAGENET, Swin3D_T_Weights.KINETICS400_V1),
    "video_swin_s": Variant(VideoSwin, VideoSwinConfig(), IMAGENET, Swin3D_S_Weights.KINETICS400_V1),
    "video_swin_b": Variant(
        VideoSwin, VideoSwinConfig(width=128, heads=(4, 8, 16, 32)), IMAGENET, Swin3D_B_Weights.KINETICS400_V1
    ),
    "video_swin_demo": Variant(VideoSwin, SWIN_DEMO),
    "timesformer_base": Variant(TimeSformer, TimeSformerConfig()),
    "timesformer_demo": Variant(TimeSformer, TIMESFORMER_DEMO),
    "timesformer_joint_demo": Variant(TimeSformer, dataclasses.replace(TIMESFORMER_DEMO, attention="joint")),
    "mvit_v2_s": Variant(MViT, MViTConfig(), torchvision=MViT_V2_S_Weights.KINETICS400_V1),
    "mvit_demo": Variant(MViT, MVIT_DEMO),
    "vit_small_videomae": Variant(ViT, ViTConfig(width=384, heads=6), IMAGENET),
    "vit_base_videomae": Variant(ViT, ViTConfig(), IMAGENET),
    "vit_large_videomae": Variant(ViT, ViTConfig(width=1024, depth=24, heads=16), IMAGENET),
    "vit_huge_videomae": Variant(ViT, ViTConfig(width=1280, depth=32, heads=16), IMAGENET),
    "vit_demo": Variant(ViT, VIT_DEMO, IMAGENET),
}
DEFAULT_BACKBONE = "video_swin_s"


def build_backbone(
    name: str,
    num_classes: int,
    options: Mapping[str, Any] | None = None,
    removed_layers: tuple[int, ...] = (),
    removed_heads: tuple[Unit, ...] = (),
    interpreters: Mapping[str, Any] | None = None,
) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: A registered name, see `VARIANTS`.
        num_classes: Number of classes.
        options: Fields of the family's configuration that are to differ, e.g. ``{"shifted_windows": False}``.
        removed_layers: Original indices of layers to leave out.
        removed_heads: Heads to leave out.
        interpreters: Fields of `InterpretersConfig` that are to differ, for a backbone that holds interpreters; it
            holds none if None.

    Raises:
        ValueError: If the name, an option or its value is unknown, a layer or head cannot be removed, or the family
            cannot hold interpreters.
    """
    variant = find_variant(name)
    config = dataclasses.replace(override(variant.config, options or {}, name), num_classes=num_classes)
    check_limits(config, name)
    try:
        backbone = variant.family(config, variant.record)
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise ValueError(f"{name} with these options does not fit into memory: {config}.") from error
    if interpreters is not None:
        backbone.reducer = _interpreters(backbone, interpreters)
    take_over_linears(backbone)
    if removed_layers:
        backbone = backbone.without(removed_layers)
    return backbone.without_heads(removed_heads) if removed_heads else backbone


def _interpreters(backbone: Backbone, options: Mapping[str, Any]) -> Interpreters:
    if len(backbone.stage_starts) > 1 or backbone.dropped_tokens == "refused":
        raise ValueError(
            f"{backbone.family} cannot hold interpreters: what they drop is gone for all layers that follow, which "
            "only models of one stage allow. Choose such a backbone, or leave interpreters out."
        )
    config = override(InterpretersConfig(), options, "interpreters")
    return Interpreters(config, backbone.config.width, backbone.depth)


def find_variant(name: str) -> Variant:
    """Return a registered variant.

    Raises:
        ValueError: If there is none of this name; the message names those that may be meant.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    near = near_names(name, VARIANTS, {key: _torchvision_name(entry) for key, entry in VARIANTS.items()})
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    if "/" in str(name):
        hint += (
            " This looks like the name of a model on a hub: name the backbone here, download the model, and pass its "
            "folder as the weights (--model.weights)."
        )
    raise ValueError(f"Unknown backbone {name!r}.{hint} Registered are {', '.join(VARIANTS)}.")


def _torchvision_name(variant: Variant) -> str:
    """Return what torchvision calls the architecture, e.g. ``MViT_V2_S_Weights`` -> ``mvit_v2_s``."""
    return "" if variant.torchvision is None else type(variant.torchvision).__name__.removesuffix("_Weights").lower()


def override(config: Any, options: Mapping[str, Any], name: str) -> Any:
    """Return the configuration with some fields replaced; values must be of the field's own kind."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "num_classes"}
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in fields:
            raise ValueError(f"{name} has no option {key!r}; its options are {', '.join(fields)}.")
        default = fields[key]
        if isinstance(default, tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(v, int) for v in value):
                raise ValueError(
                    f"Option {key} of {name} must be a list of integers like {list(default)}, got {value!r}."
                )
            value = tuple(value)
        elif isinstance(default, float):
            value = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if type(value) is not type(default):
            raise ValueError(f"Option {key} of {name} must be of type {type(default).__name__}, got {value!r}.")
        values[key] = value
    return dataclasses.replace(config, **values)
