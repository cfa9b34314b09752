"""Video transformers behind one contract (`contract.backbone`), and their registry."""

from sightline.backbones.contract.backbone import Backbone
from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.layout import CLASS_TOKEN, NO_TOKEN, AttentionLayout
from sightline.backbones.contract.observation import HeadOutputs, Observation, Observer
from sightline.backbones.contract.reducer import Needs, Place, Reducer, Selection
from sightline.backbones.contract.state import TokenState
from sightline.backbones.contract.steps import Step, last_state, run_steps
from sightline.backbones.registry import VARIANTS, build_backbone

__all__ = [
    "CLASS_TOKEN",
    "NO_TOKEN",
    "VARIANTS",
    "AttentionLayout",
    "Backbone",
    "HeadOutputs",
    "Layer",
    "Needs",
    "Observation",
    "Observer",
    "Place",
    "Reducer",
    "Selection",
    "Step",
    "TokenState",
    "build_backbone",
    "last_state",
    "run_steps",
]
