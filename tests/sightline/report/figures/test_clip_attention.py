"""What the pictures of a clip hold, for every family."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from sightline.backbones import build_backbone
from sightline.explain import head_maps, rollout
from sightline.relevance.clip_heads import HeadChooser
from sightline.report.figures.clip_attention import ClipAttention, best_heads
from tests.conftest import DEMO_VARIANTS, randomise


def attention(variant: str, sample_id: str = "clip0") -> ClipAttention:
    """A demo model with scores that grow with layer and head."""
    backbone = randomise(build_backbone(variant, 2))
    spec = backbone.input_spec
    shape = (1, 3, spec.frames, spec.height, spec.width)
    clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = [
        {"sample_id": f"clip{i}", "label": i, "predicted": 0, "group": f"g{i}", "layer": unit.layer, "site": unit.site,
         "head": unit.head, "r": unit.layer / 10 + unit.head / 100, "dprob": 0.0, "jsd": 0.0}
        for i in range(2) for unit in backbone.units("heads")
    ]  # fmt: skip
    heads = HeadChooser(pd.DataFrame(rows), ["drive", "phone"], 1, 1, 2).choose(sample_id, 0)
    maps = head_maps(backbone, clip, list({head.unit for head in (*heads.extremes, *heads.specialised)}))
    best = [maps[head.unit] for head in best_heads(heads)]
    return ClipAttention(
        sample_id, "drive", "phone", 0.25, clip[0].permute(1, 2, 3, 0).numpy(), heads,
        {unit: cells.pixels()[0] for unit, cells in maps.items()},
        best[0].times(best[1]).pixels()[0] if len(best) == 2 else None,
        rollout(backbone, clip).pixels()[0] if backbone.square_attention else None, "r", "test",
    )  # fmt: skip


@pytest.mark.parametrize("variant", DEMO_VARIANTS)
def test_every_family_is_drawn(variant: str):
    view = attention(variant)
    sites = ["spatial", "temporal"] if variant == "timesformer_demo" else ["attention"]
    axes = [axes for axes in view.grid().figure.axes if axes.images]
    assert len(axes) == len(sites) * 6  # most and least relevant at three depths
    last = max(head.unit.layer for head in view.heads.extremes)
    most = max(head.unit.head for head in view.heads.extremes if head.unit.layer == last)
    assert axes[2].get_title() == f"deep layers\nlayer {last} head {most}, r {last / 10 + most / 100:.2g}"
    assert axes[3].get_title() == "layer 0 head 0, r 0"
    # Scores grow with depth, so of one site without rollout the most relevant head is the specialised one.
    strips = view.strips()
    assert [panel.title.partition(",")[0] for panel in strips["frames"]] == sites
    methods = [panel.title.partition(",")[0].partition(":")[0] for panel in strips.get("methods", [])]
    assert methods == {
        "timesformer_demo": ["spatial", "temporal", "product", "attention rollout"],
        "timesformer_joint_demo": ["attention", "attention rollout"],
        "vit_demo": ["attention", "attention rollout"],
    }.get(variant, [])
    if len(sites) == 2:
        spatial, temporal, product = (panel.pixels for panel in strips["methods"][:3])
        torch.testing.assert_close(product, spatial * temporal)
    for panels in strips.values():
        assert view.strip(panels).axes[0].get_title(loc="left") == "frames"
        video = view.video(panels)
        assert len(video) == len(view.frames)
        assert video.dtype == np.uint8


def test_words_say_class_prediction_heads_and_of_which_clips_the_scores_are():
    view = attention("video_swin_demo")
    assert view.captions() == {
        "heads": "Attention of the most and the least relevant heads of early, intermediate and deep layers. "
        "Clip clip0: drive, predicted phone (25%).",
        "frames": "Attention of the head most relevant to drive, frame by frame. "
        "Clip clip0: drive, predicted phone (25%).",
    }
    assert (
        attention("timesformer_demo")
        .captions()["methods"]
        .startswith(
            "Attention of the most relevant heads of all layers, their product and attention rollout, frame by frame. "
        )
    )
    assert view.scored == "r on this clip"
    rows = pd.DataFrame(view.table())
    assert len(rows) == 8 + 1
    assert rows.loc[rows["choice"] == "specialised", "r"].item() == rows["r"].max()
    assert attention("video_swin_demo", "new").scored == "r: mean of 1 test clips of its class"


def test_the_most_relevant_head_is_drawn_where_it_is_not_the_specialised_one():
    view = attention("video_swin_demo")
    other = dataclasses.replace(view.heads, specialised=(view.heads.extremes[1],))
    methods = dataclasses.replace(view, heads=other).strips()["methods"]
    assert [panel.title.partition(":")[0] for panel in methods] == ["attention, most relevant"]
