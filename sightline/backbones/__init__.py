"""Video transformers behind one contract (`sightline.backbones.contract.backbone`)."""

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.layout import CLASS_TOKEN, NO_TOKEN, AttentionLayout
from sightline.backbones.contract.observation import HeadOutputs, Observation, Observer
from sightline.backbones.contract.state import TokenState
from sightline.backbones.registry import VARIANTS, build_backbone

__all__ = [
    "CLASS_TOKEN",
    "NO_TOKEN",
    "VARIANTS",
    "AttentionLayout",
    "Backbone",
    "HeadOutputs",
    "Layer",
    "Observation",
    "Observer",
    "TokenState",
    "build_backbone",
]
