"""One full model serves any depth: its logits are those of the pruned export of that depth."""

import pandas as pd
import pytest
import torch

from sightline.backbones import build_backbone
from sightline.export.depth import layers_to_skip
from sightline.export.reading import ExportError, load_exported
from sightline.export.writing import export_model
from sightline.pruning import one_shot_plans, unpruned_plan
from sightline.pruning.selection import relevance_ranking
from tests.conftest import TINY_SWIN, randomise

FEW = {
    "video_swin_demo": TINY_SWIN,
    "timesformer_demo": {"depth": 4},
    "vit_demo": {"depth": 4},
    "mvit_demo": {"depths": [2, 3], "heads": [2, 4]},
}


def export(backbone, folder, name, plan, **changes):
    return export_model(
        backbone.without(plan.removed_layers), folder, name=name, options=FEW[name], plan=plan, provenance={},
        sampling={}, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("name", FEW)
def test_logits_are_those_of_the_pruned_export(name, tmp_path):
    backbone = randomise(build_backbone(name, 3, FEW[name]))
    # Ties among the scores: 0 0 2 2 4 4 ..., the last layers first.
    scores = pd.Series({info.index: float((backbone.depth - info.index) // 2 * 2) for info in backbone.layers})
    ranking = relevance_ranking(scores, backbone.layers)
    full = export(backbone, tmp_path / "full", name, unpruned_plan(), ranking=ranking)
    served = load_exported(full).backbone
    spec = served.input_spec
    clips = torch.randint(256, (2, 3, spec.frames, spec.height, spec.width), dtype=torch.uint8)
    count = len(ranking)
    with torch.no_grad():
        for plan in one_shot_plans(scores, backbone.layers, [1, count], ["lowest"]):
            pruned = load_exported(export(backbone, tmp_path / plan.plan_id, name, plan)).backbone
            skip = layers_to_skip(full, plan.k)
            assert skip == plan.removed_layers
            assert torch.equal(served(clips, skip=skip), pruned(clips))
        assert layers_to_skip(full, 0) == ()


def test_what_cannot_be_served_is_said(tiny_swin, tmp_path):
    scores = pd.Series({0: 0.3, 1: 0.1, 2: 0.2, 3: 0.1})
    ranking = relevance_ranking(scores, tiny_swin.layers)
    assert ranking == [1, 3, 2, 0]
    tiny = randomise(build_backbone("video_swin_demo", 5, TINY_SWIN))
    full = export(tiny, tmp_path / "full", "video_swin_demo", unpruned_plan(), ranking=ranking)
    for depth in (-1, 5):
        with pytest.raises(ValueError, match=f"depth from 0 to 4.*got {depth}"):
            layers_to_skip(full, depth)
    unranked = export(tiny, tmp_path / "unranked", "video_swin_demo", unpruned_plan())
    with pytest.raises(ExportError, match="holds no ranking"):
        layers_to_skip(unranked, 1)
    (plan,) = one_shot_plans(scores, tiny.layers, [1], ["lowest"])
    pruned = export(tiny, tmp_path / "pruned", "video_swin_demo", plan, ranking=ranking)
    with pytest.raises(ExportError, match="pruned already"):
        layers_to_skip(pruned, 1)
    assert layers_to_skip(pruned, 0) == ()
