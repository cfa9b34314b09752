"""What is checked of every attribution method before and after it runs."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.explain.attribution.method import Attribution, Method, Passes, attribute
from sightline.explain.cell_map import CellMap


@dataclass(frozen=True)
class Constant(Method):
    """A map of one value."""

    name: ClassVar[str] = "constant"
    value: float = 1.0

    def attribute(self, backbone, clips, targets):
        values = torch.full((len(clips), 4, 8, 8), self.value)
        return Attribution(CellMap(values, (2, 8, 8), backbone.input_spec), passes=Passes(forward=1))


BACKBONE = build_backbone("vit_demo", 3, {"frames": 8, "size": 64}).eval()
CLIPS = torch.zeros(2, 3, 8, 64, 64, dtype=torch.uint8)


def test_time_is_told_per_clip_and_frames_are_sums_over_space():
    found = attribute(Constant(), BACKBONE, CLIPS, torch.tensor([0, 2]))
    assert found.seconds > 0
    assert torch.equal(found.by_frame, torch.full((2, 4), 64.0))


@pytest.mark.parametrize("targets", [torch.tensor([0]), torch.tensor([0.0, 1.0]), torch.tensor([0, 3])])
def test_targets_must_fit(targets):
    with pytest.raises(ValueError, match=r"Expected (one class per clip|classes from 0 to 2)"):
        attribute(Constant(), BACKBONE, CLIPS, targets)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="constant gave values that are not finite"):
        attribute(Constant(value=float("nan")), BACKBONE, CLIPS, torch.tensor([0, 2]))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="evaluation mode"):
        attribute(Constant(), build_backbone("vit_demo", 3, {"frames": 8, "size": 64}), CLIPS, torch.tensor([0, 2]))
