"""Every registered demo variant with weights that matter, clips for it, and what it says of these."""

import pytest
import torch

from sightline.backbones import Backbone, build_backbone
from tests.conftest import DEMO_VARIANTS, randomise


@pytest.fixture(scope="module", params=DEMO_VARIANTS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return randomise(build_backbone(request.param, 7))


@pytest.fixture(scope="module")
def clips(backbone: Backbone) -> torch.Tensor:
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def logits(backbone: Backbone, clips: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return backbone(clips)
