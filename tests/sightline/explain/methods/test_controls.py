"""Controls by hand, and models of new weights."""

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.explain.attribution.method import attribute
from sightline.explain.methods.chefer import GenericRelevance
from sightline.explain.methods.controls import (
    Brightness,
    CentrePrior,
    MotionEnergy,
    RandomMap,
    Untrained,
    cell_means,
    luminance,
    with_new_weights,
)

BACKBONE = build_backbone("vit_demo", 3, {"frames": 8, "size": 64}).eval()
NOBODY = torch.tensor([0])


def values(method, clips, backbone=BACKBONE):
    return attribute(method, backbone, clips, NOBODY.repeat(len(clips))).cells.values


def test_brightness_and_motion_of_a_flash():
    clips = torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8)
    clips[0, 1, 5, 16:24, 8:16] = 255  # green, one cell of frame 5
    bright, moved = values(Brightness(), clips)[0], values(MotionEnergy(), clips)[0]
    # One of the two frames of its cell; luminance of green is .587.
    assert float(bright[2, 2, 1]) == pytest.approx(0.587 / 2, abs=1e-6)
    assert float(bright.sum()) == pytest.approx(0.587 / 2, abs=1e-6)
    assert float(moved[2, 2, 1]) == pytest.approx(0.587**2 / 2, abs=1e-6)  # appears in frame 5 ...
    assert float(moved[3, 2, 1]) == pytest.approx(0.587**2 / 2, abs=1e-6)  # ... and is gone in frame 6
    assert float(moved.sum()) == pytest.approx(0.587**2, abs=1e-6)


def test_a_still_clip_and_a_clip_of_one_frame_have_no_motion():
    assert float(values(MotionEnergy(), torch.full((1, 3, 8, 64, 64), 7, dtype=torch.uint8)).abs().max()) == 0
    single = build_backbone("timesformer_demo", 3, {"frames": 1, "size": 64}).eval()
    assert float(values(MotionEnergy(), torch.rand(1, 3, 1, 64, 64), single).abs().max()) == 0


def test_the_centre_is_the_centre_in_every_frame():
    found = values(CentrePrior(), torch.rand(1, 3, 8, 64, 64))[0]
    assert torch.equal(found[0], found[3])
    assert torch.allclose(found[0], found[0].flip(0).flip(1))
    assert found[0].max() == found[0, 3, 3]


def test_noise_depends_on_the_clip_and_the_seed():
    clips = torch.randint(256, (2, 3, 8, 64, 64), dtype=torch.uint8)
    first = values(RandomMap(), clips)
    assert torch.equal(values(RandomMap(), clips.flip(0)), first.flip(0))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(values(RandomMap(seed=1), clips), first)


def test_grey_is_its_own_luminance_and_cells_are_means():
    assert torch.allclose(luminance(torch.full((1, 3, 2, 4, 4), 51, dtype=torch.uint8)), torch.tensor(0.2))
    assert cell_means(torch.arange(8.0).view(1, 2, 2, 2), (1, 1, 2)).flatten().tolist() == [3, 4]


def test_new_weights_have_the_old_ones_spread_and_leave_the_model_alone():
    before = {name: tensor.clone() for name, tensor in BACKBONE.state_dict().items()}
    fresh = with_new_weights(BACKBONE, seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in BACKBONE.state_dict().items())
    old, new = BACKBONE.blocks["0"].attn.qkv.weight, fresh.blocks["0"].attn.qkv.weight
    assert float(new.std()) == pytest.approx(float(old.std()), rel=0.05)
    assert float(torch.corrcoef(torch.stack((old.flatten(), new.flatten())))[0, 1]) == pytest.approx(0, abs=0.05)
    assert not fresh.training
    some = with_new_weights(BACKBONE, 0, frozenset({"blocks.0.attn.qkv.weight"}))
    assert torch.equal(some.blocks["0"].attn.qkv.weight, new)
    assert torch.equal(some.blocks["1"].attn.qkv.weight, BACKBONE.blocks["1"].attn.qkv.weight)


def test_an_untrained_models_map_is_another():
    clips = torch.rand(1, 3, 8, 64, 64)
    method = GenericRelevance()
    assert not torch.allclose(values(Untrained(method=method), clips), values(method, clips))
    with pytest.raises(ValueError, match="name it, as untrained:of=staa"):
        Untrained().check(BACKBONE)
