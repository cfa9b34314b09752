"""Multiply-adds with dropped tokens: counted on clips, against a closed form and the count without clips."""

import pytest
import torch

from sightline.backbones import Observer, build_backbone
from sightline.export.counting import count_cost, macs_by_clip
from sightline.tokens import KeepRandom
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.backbones.reducers import KeepEvery


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_with_nothing_dropped_clips_count_what_shapes_count(name):
    backbone = build_backbone(name, 7).eval()
    assert count_cost(backbone, KeepEvery(1)) == count_cost(backbone)


def test_joint_attention_costs_what_the_closed_form_says():
    backbone = build_backbone("vit_demo", 7)
    spec, config = backbone.input_spec, backbone.config
    t, h, w = config.patch
    cells, d = spec.frames // t * (spec.height // h) * (spec.width // w), config.width
    embedding = cells * d * 3 * t * h * w
    for kept in (1.0, 0.5, 0.25):
        n = int(cells * kept)
        layer = 12 * n * d * d + 2 * n * n * d + 2 * 5 * n * d
        expected = embedding + config.depth * layer + 5 * d + d * 7
        assert count_cost(backbone, KeepRandom(kept=kept)).macs == expected


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_fewer_tokens_cost_less_and_the_model_stays_as_it_is(name):
    backbone = randomise(build_backbone(name, 7)).train()
    half, all_ = count_cost(backbone, KeepRandom(kept=0.5)), count_cost(backbone)
    assert half.params == all_.params
    # Where the grid is filled again (merging, pooling), what follows costs what it costs without a reducer.
    assert half.macs < (0.6 if backbone.dropped_tokens == "left_out" else 1.0) * all_.macs
    assert backbone.training


def test_the_mean_over_clips_is_told():
    backbone = build_backbone("vit_demo", 7).eval()
    spec = backbone.input_spec
    shape = (3, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    reducer = KeepEvery(2, ragged=True)
    counts = macs_by_clip(backbone, reducer, clips)
    assert len(set(counts)) == 2  # the clips keep unequal numbers
    assert count_cost(backbone, reducer, clips).macs == round(sum(counts) / 3)
    with pytest.raises(ValueError, match="at least one, got none"):
        count_cost(backbone, reducer, clips[:0])


def test_counting_leaves_attention_fused_afterwards():
    backbone = build_backbone("mvit_demo", 7).eval()
    count_cost(backbone, KeepRandom())
    with torch.no_grad(), torch.profiler.profile() as profile:
        backbone(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8))
    names = {event.key for event in profile.key_averages()}
    assert any("scaled_dot_product" in name for name in names)
    assert backbone(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8), observer=Observer(attention=True)).shape == (1, 7)
