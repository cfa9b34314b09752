"""Baseline rankings against slow definitions."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from sightline.backbones import build_backbone
from sightline.pruning.baselines import (
    baseline_scores,
    clip_baselines,
    last_scores,
    random_scores,
    score_baselines,
)
from sightline.types import LayerInfo
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.run.threads import in_threads

LABELS = torch.tensor([0, 3, 4])
NAMES = ["c0", "c1", "c2"]
LAYERS = tuple(LayerInfo(index, 0, (), removable=index != 1) for index in range(4))


class Split:
    def __init__(self, clips: torch.Tensor) -> None:
        self.clips = clips
        self.asked: list[list[int]] = []

    def batches(self, places: list[int]):
        self.asked.append(places)
        yield {
            "clip": self.clips[places], "label": LABELS[places], "sample_id": [NAMES[i] for i in places],
            "group": ["g"] * len(places), "unreadable": [],
        }  # fmt: skip


def scored(backbone, split: Split, folder, weights="w", ranks=None):
    return score_baselines(
        backbone, folder, NAMES, split.batches, weights_sha256=weights, data_sha256="d", ranks=ranks,
        provenance={"split": "train"},
    )  # fmt: skip


def test_random_and_last_by_hand():
    assert last_scores(LAYERS).to_dict() == {0: 2.0, 2: 1.0, 3: 0.0}
    drawn = random_scores(LAYERS, 0)
    # Python promises that a seed's random() stays what it is: 0.844, 0.758, 0.421 for seed 0.
    assert drawn.round(3).to_dict() == {0: 0.844, 2: 0.758, 3: 0.421}
    assert random_scores(LAYERS, 0).equals(drawn)
    orders = {tuple(random_scores(LAYERS, seed).sort_values().index) for seed in range(60)}
    assert len(orders) == 6  # every order of three layers is drawn


def test_block_influence_is_one_minus_the_mean_cosine_of_every_token(tiny_swin, tiny_clips):
    with torch.no_grad():
        found = clip_baselines(tiny_swin, tiny_clips, LABELS).block_influence
        state = tiny_swin.embed(tiny_clips)
        for index in range(4):
            entered = tiny_swin.before_layer(index, state)
            state = tiny_swin.run(state, index, index + 1)
            for clip in range(3):
                pairs = zip(entered.tokens[clip], state.tokens[clip], strict=True)
                cosines = [float(x @ y / (x.norm() * y.norm())) for x, y in pairs]
                assert found[index, clip].item() == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5)


def test_gradient_is_the_slope_of_the_loss_in_a_layers_share(tiny_swin, tiny_clips):
    """d loss / d g at g = 1 where a layer is x + g (y - x), found by small steps in float64."""
    model, clips = tiny_swin.double(), tiny_clips.double() / 255
    found = clip_baselines(model, clips, LABELS).gradient
    step = 1e-4

    def losses(scaled: int, share: float) -> torch.Tensor:
        with torch.no_grad():
            state = model.embed(clips)
            for index in range(4):
                x = model.before_layer(index, state)
                state = model.run(state, index, index + 1)
                if index == scaled:
                    state = state.with_tokens(x.tokens + share * (state.tokens - x.tokens))
            return torch.nn.functional.cross_entropy(model.classify(state), LABELS, reduction="none")

    for index in range(4):
        slope = (losses(index, 1 + step) - losses(index, 1 - step)) / (2 * step)
        torch.testing.assert_close(found[index].double(), slope.abs(), rtol=1e-3, atol=1e-6)


def test_a_layer_that_does_nothing_scores_zero(tiny_swin, tiny_clips):
    with torch.no_grad():
        layer = tiny_swin.layer_modules()[2]
        for linear in (layer.attn.proj, layer.mlp[3]):
            linear.weight.zero_()
            linear.bias.zero_()
    found = clip_baselines(tiny_swin, tiny_clips, LABELS)
    # Equal tokens have a cosine of 1 but for float32's rounding.
    assert found.block_influence[2].abs().max() < 1e-6
    assert found.gradient[2].abs().max() == 0
    assert found.block_influence[[0, 1, 3]].min() > 1e-3
    assert found.gradient[[0, 1, 3]].max(dim=1).values.min() > 1e-3


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_every_family_has_scores_of_its_removable_layers_clip_by_clip(name):
    backbone = randomise(build_backbone(name, 7)).requires_grad_(False)
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = clip_baselines(backbone, clips, LABELS[:2])
    removable = sum(info.removable for info in backbone.layers)
    assert found.block_influence.shape == found.gradient.shape == (removable, 2)
    alone = clip_baselines(backbone, clips[1:], LABELS[1:2])
    torch.testing.assert_close(found.block_influence[:, 1:], alone.block_influence, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.gradient[:, 1:], alone.gradient, rtol=1e-3, atol=1e-5)


def test_training_mode_is_refused(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="evaluation mode"):
        clip_baselines(tiny_swin.train(), tiny_clips, LABELS)


def test_means_are_stored_with_their_origin_and_not_computed_twice(tiny_swin, tiny_clips, tmp_path):
    split = Split(tiny_clips)
    content = scored(tiny_swin, split, tmp_path)
    exact = clip_baselines(tiny_swin, tiny_clips, LABELS)
    assert baseline_scores(content, "gradient").to_list() == pytest.approx(exact.gradient.mean(1).tolist(), rel=1e-5)
    assert baseline_scores(content, "block_influence").index.to_list() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["baselines.json"]
    stored = json.loads((tmp_path / "baselines.json").read_text())
    assert (stored["weights_sha256"], stored["data_sha256"], stored["samples"], stored["split"]) == (
        "w",
        "d",
        3,
        "train",
    )
    assert scored(tiny_swin, split, tmp_path) == content
    assert len(split.asked) == 1
    assert scored(tiny_swin, split, tmp_path, weights="other")["weights_sha256"] == "other"
    assert len(split.asked) == 2


def test_two_processes_compute_what_one_does(tiny_swin, tiny_clips, tmp_path):
    one = scored(tiny_swin, Split(tiny_clips), tmp_path / "one")
    splits = [Split(tiny_clips), Split(tiny_clips)]
    two, _ = in_threads(2, lambda ranks: scored(tiny_swin, splits[ranks.rank], tmp_path / "two", ranks=ranks))
    assert [split.asked for split in splits] == [[[0, 2]], [[1]]]
    for method in ("block_influence", "gradient"):
        pd.testing.assert_series_equal(baseline_scores(two, method), baseline_scores(one, method), rtol=1e-4, atol=1e-6)
