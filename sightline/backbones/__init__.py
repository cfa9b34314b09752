"""Video transformers behind one contract (`sightline.backbones.base`)."""

from sightline.backbones.base import Backbone
from sightline.backbones.layer import Layer
from sightline.backbones.layout import CLASS_TOKEN, NO_TOKEN, AttentionLayout
from sightline.backbones.observation import Attended, Observation, Observer
from sightline.backbones.registry import VARIANTS, build_backbone
from sightline.backbones.state import TokenState

__all__ = [
    "CLASS_TOKEN",
    "NO_TOKEN",
    "VARIANTS",
    "Attended",
    "AttentionLayout",
    "Backbone",
    "Layer",
    "Observation",
    "Observer",
    "TokenState",
    "build_backbone",
]
