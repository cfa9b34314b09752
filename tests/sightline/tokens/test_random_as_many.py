"""The control of what a reducer kept: the same numbers at the same places, other cells."""

import pytest
import torch

from sightline.backbones import Place, build_backbone
from sightline.tokens import trace
from sightline.tokens.random_as_many import RandomAsMany
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.backbones.reducers import KeepEvery


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_as_many_at_every_place(name):
    backbone = randomise(build_backbone(name, 3))
    spec = backbone.input_spec
    clips = torch.randint(
        0,
        256,
        (3, 3, spec.frames, spec.height, spec.width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(2),
    )
    kept = trace(backbone, clips, KeepEvery(2, (Place("embedding"), *backbone.reduction_places), ragged=True))
    assert len({int(n) for n in kept[0].after}) == 2  # some clips keep one fewer
    control = trace(backbone, clips, RandomAsMany.of(kept))
    assert [at.place for at in control] == [at.place for at in kept]
    for own, drawn in zip(kept, control, strict=True):
        assert torch.equal(own.after, drawn.after)
        assert own.grid == drawn.grid
    other = trace(backbone, clips, RandomAsMany.of(kept, seed=1))
    assert not torch.equal(other[0].cells, control[0].cells)
    alone = trace(backbone, clips[:1], RandomAsMany({at.place: at.after[:1] for at in kept}))
    for at, together in zip(alone, control, strict=True):
        assert torch.equal(at.cells[0], together.cells[0][: int(together.after[0])])
    with pytest.raises(ValueError, match="the 3 clips that the numbers of tokens are of, got 1"):
        trace(backbone, clips[:1], RandomAsMany.of(kept))


def test_every_cell_is_as_likely_as_any_other(tiny_swin, tiny_clips):
    place = Place("embedding")
    state = tiny_swin.embed(tiny_clips[:1])
    times = torch.zeros(128)
    for seed in range(200):
        times[RandomAsMany({place: torch.tensor([32])}, seed).reduce(place, state).cells[0]] += 1
    # 200 draws with probability 1/4: 50 on average, standard deviation 6.1.
    assert times.mean() == 50
    assert 25 < times.min() <= times.max() < 75
    assert 4.5 < times.std() < 7.7
