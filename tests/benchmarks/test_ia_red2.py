"""The benchmark of IA-RED²: what it computes from results, and what it cuts, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.ia_red2 import cut_figure, cut_weights, linear_macs, reducers_of, summed_up  # noqa: E402
from benchmarks.policies import Clips, right  # noqa: E402
from sightline.backbones import build_backbone  # noqa: E402
from sightline.export.counting import count_cost  # noqa: E402
from sightline.tokens import kept_share  # noqa: E402


def make_backbone():
    torch.manual_seed(0)
    return build_backbone("vit_demo", 3, {"frames": 4, "size": 32, "patch": [2, 8, 8]}).eval()


def test_views_of_a_clip_are_averaged():
    backbone = make_backbone()
    clips = torch.rand(6, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean = backbone(clips).softmax(dim=1).view(2, 3, -1).mean(dim=1)
    labels = torch.stack((mean[0].argmax(), mean[1].argmin()))
    assert right(backbone, Clips(clips, labels, ["a", "b"])).tolist() == [1, 0]


def test_the_smallest_weights_of_every_linear_layer_go():
    backbone = make_backbone()
    smaller = cut_weights(backbone, 0.5)
    before = dict(backbone.named_parameters())
    linear = {f"{n}.weight" for n, m in backbone.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n}
    for name, parameter in smaller.named_parameters():
        if name in linear:
            gone = parameter == 0
            assert gone.float().mean() == pytest.approx(0.5, abs=0.001)
            assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
        else:
            assert torch.equal(parameter, before[name])


def test_multiply_adds_of_linear_layers():
    backbone = make_backbone()
    clip = torch.zeros(1, 3, 4, 32, 32)
    config = backbone.config
    per_token = 4 * config.width**2 + 2 * config.mlp_ratio * config.width**2  # attention's four, and the MLP's two
    assert linear_macs(backbone, clip, None) == config.depth * 32 * per_token  # 2x4x4 tokens
    assert linear_macs(backbone, clip, None) < count_cost(backbone).macs
    [half] = reducers_of("temporal_difference", 0.5, backbone, clip)
    assert linear_macs(backbone, clip, half) == pytest.approx(config.depth * 16 * per_token, rel=0.2)
    assert float(kept_share(backbone, clip, half)) == pytest.approx(0.5, abs=0.05)


def test_random_dropping_has_several_draws():
    backbone = make_backbone()
    draws = reducers_of("random", 0.5, backbone, torch.zeros(1, 3, 4, 32, 32))
    assert [draw.seed for draw in draws] == [0, 1, 2, 3, 4]


def test_differences_are_paired_clip_by_clip():
    clips, groups = range(4), ["a", "b", "a", "b"]
    right_of = {"all tokens": [1, 1, 1, 0], "random": [0.2, 0.4, 0.6, 0.0], "ia_red2": [1, 0, 1, 1]}
    frame = pd.concat(
        pd.DataFrame(
            {"method": method, "kept": 1.0 if method == "all tokens" else 0.5, "tuned": False, "clip": clips}
        ).assign(group=groups, right=values, right_in_3=[1, 1, 0, 0], seed=[0, 0, 1, 1])
        for method, values in right_of.items()
    )
    rows = summed_up(frame, {("all tokens", 1.0): 10.0, ("random", 0.5): 20.0, ("ia_red2", 0.5): 15.0})
    found = rows.set_index("method")
    assert found.loc["random", "top1"] == pytest.approx(30)
    assert found.loc["ia_red2", "by_seed"] == "50.0 100.0"
    assert found.loc["ia_red2", "vs_random"] == pytest.approx(100 * (0.8 - 0.4 + 0.4 + 1.0) / 4)
    assert found.loc["ia_red2", "video1"] == 50
    assert found.loc["random", "vs_ia_red2"] == -found.loc["ia_red2", "vs_random"]
    assert found.loc["all tokens", "clips_per_s"] == 10
    assert pd.isna(found.loc["all tokens", "vs_random"])  # it keeps another share


def test_the_figure_has_a_line_for_each_kind_of_cut():
    cut = pd.DataFrame(
        [
            {"weights_cut": share, "layers": layers, "kept": kept, "macs_pct": 100 * kept * (1 - share), "top1": 50.0}
            for share, layers in ((0.0, 0), (0.5, 0), (0.0, 1))
            for kept in (1.0, 0.5)
        ]
    )
    (axes,) = cut_figure(cut).axes
    assert [line.get_label() for line in axes.get_lines()] == [
        "fewer tokens (IA-RED²)",
        "weights cut",
        "weights cut, half of the tokens",
        "layers removed",
        "layers removed, half of the tokens",
    ]
