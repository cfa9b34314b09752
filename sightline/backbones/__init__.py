"""Video transformers behind one contract (`sightline.backbones.base`)."""

from sightline.backbones.base import Attended, Backbone, Layer, Observation, Observer
from sightline.backbones.registry import VARIANTS, build_backbone
from sightline.backbones.state import TokenState

__all__ = ["VARIANTS", "Attended", "Backbone", "Layer", "Observation", "Observer", "TokenState", "build_backbone"]
