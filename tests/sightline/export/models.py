"""A small model of some removed layers and heads, and its exported folder."""

from pathlib import Path

import numpy as np
import torch

from sightline.backbones import build_backbone
from sightline.export.writing import export_model
from sightline.pruning import PruningPlan, unpruned_plan
from sightline.types import ModelRecord, Unit

NAME = "video_swin_demo"
OPTIONS = {"shifted_windows": False, "window": [4, 4, 4]}
RECORD = ModelRecord((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("drinking", "größere Pause", "writing"), "a test")
HEADS = (Unit(0, "attention", 1), Unit(3, "attention", 0), Unit(3, "attention", 2))
PLANS = {
    "full": unpruned_plan(),
    "layers": PruningPlan("relevance", "r", "lowest", 3, (1, 3, 5)),
    "heads": PruningPlan("relevance", "r", "lowest", 3, removed_heads=HEADS),
    "both": PruningPlan("random", "jsd", "highest", 4, (1,), HEADS, seed=5),
}


def make(plan: PruningPlan, seed: int = 0):
    torch.manual_seed(seed)
    backbone = build_backbone(NAME, 3, OPTIONS)
    for parameter in backbone.parameters():  # so that every tensor matters, the zero biases too
        torch.nn.init.normal_(parameter, std=0.1)
    backbone.set_record(RECORD)
    return backbone.without(plan.removed_layers).without_heads(plan.removed_heads).eval()


def export(backbone, folder, plan, **changes):
    arguments = {
        "name": NAME,
        "options": OPTIONS,
        "plan": plan,
        "provenance": {"run": Path("runs/one"), "epoch": np.int64(4)},
        "scores": {np.int64(1): np.float64(0.25), 3: 0.5},
        "sampling": {"stride": 2},
        "hyper_parameters": {"backbone": NAME, "removed_layers": list(plan.removed_layers)},
    }
    return export_model(backbone, folder, **{**arguments, **changes})


def clips(seed: int = 1):
    return torch.randint(256, (2, 3, 8, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(backbone):
    return backbone(clips())
