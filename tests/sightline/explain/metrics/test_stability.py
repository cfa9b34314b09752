"""Sensitivity-max against captum and by hand; sanity by drawing weights anew."""

import pytest
import torch
from captum.metrics import sensitivity_max as captums

from sightline.explain.attribution.registry import read_method
from sightline.explain.metrics.stability import cascade, independent, sanity, sensitivity_max
from tests.sightline.explain.reading import THROUGH_ATTENTION, clips, reader


def test_a_map_that_ignores_the_clip_does_not_change():
    found = sensitivity_max(lambda pixels: torch.ones(len(pixels), 2, 2, 2), torch.rand(2, 3, 2, 4, 4), seed=0)
    assert found.tolist() == [0, 0]
    nothing = sensitivity_max(lambda pixels: torch.zeros(len(pixels), 2), torch.rand(1, 3, 2, 4, 4), seed=0)
    assert nothing.isnan().all()


def test_a_map_that_is_the_clip_changes_by_its_noise():
    shown = torch.full((1, 3, 1, 8, 8), 0.5)
    found = float(sensitivity_max(lambda pixels: pixels, shown, seed=0, radius=0.1, samples=5))
    # The noise is uniform in +-.1, so of deviation .1 / sqrt(3), and the map is .5 everywhere.
    assert found == pytest.approx(0.1 / 3**0.5 / 0.5, rel=0.1)


def test_it_is_captums():
    shown = torch.rand(1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    noise = torch.rand(shown.shape[1:], generator=torch.Generator().manual_seed(7)) * 2 - 1  # the first that is drawn

    def maps(pixels):  # captum hands the clips over as a tuple once, and then as they are
        return ((pixels if isinstance(pixels, torch.Tensor) else pixels[0]).square(),)

    expected = captums(maps, shown, lambda pixels: pixels + 0.02 * noise, n_perturb_samples=1)
    assert float(sensitivity_max(torch.square, shown, seed=7, samples=1)) == pytest.approx(float(expected), rel=1e-5)


def test_weights_are_drawn_anew_from_the_top_down():
    backbone = reader(THROUGH_ATTENTION)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    names, changed = [], []
    for name, fresh in cascade(backbone, seed=0):
        names.append(name)
        own = dict(fresh.named_parameters())
        changed.append({key for key in own if not torch.equal(own[key], before[key])})
    assert names == ["classifier", "layer 1", "layer 0", "embedding"]
    assert all(key.startswith("head") for key in changed[0])
    assert changed[0] < changed[1] <= changed[2] <= changed[3]
    assert not any(key.startswith("blocks.0") for key in changed[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_or_those_of_one_part_alone():
    backbone = reader(THROUGH_ATTENTION)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    changed = {}
    for name, fresh in independent(backbone, seed=0):
        own = dict(fresh.named_parameters())
        changed[name] = {key for key in own if not torch.equal(own[key], before[key])}
    assert list(changed) == ["classifier", "layer 1", "layer 0", "embedding"]
    assert all(key.startswith("head") for key in changed["classifier"])
    assert all(key.startswith("blocks.1.") for key in changed["layer 1"])
    assert not set.intersection(*changed.values())
    # Together they are what the cascade ends with; a tensor's draw depends on its name alone.
    *_, (_, last) = cascade(backbone, seed=0)
    for name, fresh in independent(backbone, seed=0):
        assert all(torch.equal(fresh.state_dict()[key], last.state_dict()[key]) for key in changed[name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_map_that_is_read_from_one_layer_does_not_see_the_classifier():
    backbone, shown, one = reader(THROUGH_ATTENTION), clips(2), torch.tensor([1, 1])
    raw = sanity(read_method("raw"), backbone, shown, one, independent)
    assert raw["classifier"] == pytest.approx([1, 1])
    assert max(map(abs, raw["layer 1"])) < 0.9


def test_a_map_of_the_pixels_passes_no_sanity_check_and_a_map_of_the_model_does():
    backbone, shown, one = reader(THROUGH_ATTENTION), clips(2), torch.tensor([1, 1])
    control = sanity(read_method("brightness"), backbone, shown, one)
    assert all(value == pytest.approx(1) for values in control.values() for value in values)
    ours = sanity(read_method("integrated_gradients:steps=4"), backbone, shown, one)
    assert all(value < 0.6 for value in ours["embedding"])
