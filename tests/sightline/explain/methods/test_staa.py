"""STAA's steps by hand, and the whole of it against a slow way."""

import pytest
import torch

from sightline.backbones import Observer, build_backbone
from sightline.explain.attribution.method import attribute
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.site_maps import space_and_time
from sightline.explain.methods.staa import STAA, above_deviation, above_percentile, blended, blurred_cells, smoothed
from sightline.types import InputSpec


def test_what_lies_below_mean_and_deviations_goes():
    frame = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]]).unsqueeze(0)
    # Mean 3 and variance (4 + 1 + 0 + 9) / 4 = 3.5; a constant frame stays whole.
    assert above_deviation(frame, 0.0).tolist() == [[[[0, 0], [3, 6]], [[5, 5], [5, 5]]]]
    assert above_deviation(frame, 1.0)[0, 0].tolist() == [[0, 0], [0, 6]]
    assert above_deviation(frame, -0.5)[0, 0].tolist() == [[0, 0], [3, 6]]  # 3 - 0.94 = 2.06


def test_the_notebooks_percentile_scales_every_frame():
    frame = torch.arange(11.0).view(1, 1, 1, 11)  # the 70th percentile is 7
    assert above_percentile(frame).flatten().tolist() == pytest.approx([0] * 7 + [0.7, 0.8, 0.9, 1.0])
    assert above_percentile(torch.full((1, 1, 2, 2), 3.0)).flatten().tolist() == [0, 0, 0, 0]


def test_a_blur_keeps_the_sum_inside_and_even_frames_even():
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1
    found = blurred_cells(spot)[0, 0]
    assert float(found.sum()) == pytest.approx(1)
    line = [0.27406862, 0.45186276, 0.27406862]  # exp(-1/2), 1, exp(-1/2), scaled to a sum of 1
    assert found[2, 1:4].tolist() == pytest.approx([line[1] * weight for weight in line])
    assert torch.allclose(blurred_cells(torch.full((1, 2, 3, 3), 0.5)), torch.tensor(0.5))


def test_smoothing_averages_the_frames_that_there_are():
    values = torch.tensor([0.0, 3.0, 6.0, 0.0]).view(1, 4, 1, 1)
    assert smoothed(values, 3).flatten().tolist() == pytest.approx([1.5, 3.0, 3.0, 3.0])
    assert smoothed(values, 1).flatten().tolist() == pytest.approx([0, 3, 6, 0])
    assert smoothed(values[:, :1], 3).flatten().tolist() == [0]


def test_the_notebooks_blend():
    assert blended(torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)).flatten().tolist() == pytest.approx([1, 0.3, 0.79])


def test_space_and_time_of_two_sites():
    spec = InputSpec(2, 2, 2)
    temporal = CellMap(torch.tensor([[[[1.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]]), (1, 1, 1), spec)
    spatial = CellMap(torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 5.0]]]]), (1, 1, 1), spec)
    cells, time = space_and_time([temporal, spatial])
    assert time.tolist() == [[0.75, 0.25]]
    assert cells.values.tolist() == [[[[0.375, 0.375], [0, 0]], [[0, 0], [0, 0.25]]]]
    nothing = CellMap(torch.zeros(1, 2, 2, 2), (1, 1, 1), spec)
    assert space_and_time([nothing])[0].values.flatten().tolist() == [1 / 8] * 8


def test_raw_staa_is_the_last_layers_attention_of_what_the_classifier_reads():
    torch.manual_seed(0)
    backbone = build_backbone("timesformer_joint_demo", 3, {"frames": 8, "size": 64}).eval()
    clips = torch.rand(2, 3, 8, 64, 64)
    observer = Observer(attention=True)
    backbone(clips, observer=observer)
    row = observer.sites[5, "attention"].attention[:, 0, :, 0, 1:].mean(dim=1)
    found = attribute(STAA(enhanced=False), backbone, clips, torch.tensor([0, 1])).cells.values.flatten(1)
    torch.testing.assert_close(found, row / row.sum(dim=1, keepdim=True))


def test_only_the_layer_that_is_asked_for_is_unfused():
    """STAA's cost is a forward pass: what comes after its layer does not even run."""
    backbone = build_backbone("vit_demo", 3, {"frames": 8, "size": 64}).eval()
    assert STAA(layer=2).passes(backbone).forward == 0.5


def test_a_clip_of_one_frame_of_cells():
    backbone = build_backbone("vit_demo", 3, {"frames": 2, "size": 64, "patch": [2, 8, 8]}).eval()
    found = attribute(STAA(), backbone, torch.rand(1, 3, 2, 64, 64), torch.tensor([0]))
    assert found.cells.grid == (1, 8, 8)
    assert found.by_frame.shape == (1, 1)
