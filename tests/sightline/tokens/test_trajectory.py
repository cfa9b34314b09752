"""The trajectory sum by hand and against loops over tokens, frames and tokens."""

import math

import pytest
import torch

from sightline.backbones import Place, build_backbone
from sightline.tokens.trajectory import trajectory_sum, trajectory_sums
from tests.conftest import randomise
from tests.sightline.backbones.reducers import KeepEvery


def literal(tokens, cells, grid) -> float:
    """Equation 6 of one clip, word for word: tokens (K, D), cells (K,)."""
    frames: dict[int, list[torch.Tensor]] = {}
    for token, cell in zip(tokens, cells.tolist(), strict=True):
        if cell >= 0:
            frames.setdefault(cell // (grid[1] * grid[2]), []).append(token)
    last = max(frames)
    sums = []
    for token in frames[last]:
        total = 0.0
        for frame in range(last):
            cosines = [float(token @ other / (token.norm() * other.norm())) for other in frames.get(frame, [])]
            total += max(cosines, default=0.0)
        sums.append(total)
    return sum(sums) / len(sums)


def test_by_hand():
    # Three frames of two cells. Last frame: x and y axis. First: x axis and its opposite; second: the diagonal alone.
    tokens = torch.tensor([[[3.0, 0], [-1, 0], [2, 2], [1, 0], [0, 5]]])
    cells = torch.tensor([[0, 1, 3, 4, 5]])
    half = math.sqrt(0.5)
    # The x axis: 1 + cos 45; the y axis: 0 + cos 45.
    assert trajectory_sum(tokens, cells, (3, 1, 2)).item() == pytest.approx((1 + half + half) / 2, rel=1e-6)
    # All alike: the number of earlier frames. One frame alone: nothing was to be seen before.
    assert trajectory_sum(torch.ones(1, 6, 4), torch.arange(6)[None], (3, 1, 2)).item() == pytest.approx(2)
    assert trajectory_sum(torch.ones(1, 2, 4), torch.arange(2)[None], (1, 1, 2)).item() == 0


def test_frames_without_tokens():
    tokens, grid = torch.ones(1, 3, 2), (4, 1, 2)
    # The second frame is empty and adds 0; the last frame is empty, so the third stands for it.
    assert trajectory_sum(tokens, torch.tensor([[0, 1, 4]]), grid).item() == pytest.approx(1)
    assert trajectory_sum(tokens, torch.tensor([[0, 2, 7]]), grid).item() == pytest.approx(2)


def test_against_loops_in_any_order_and_batch():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 12, 5, generator=generator)
    grid = (4, 2, 3)
    cells = torch.stack([torch.randperm(24, generator=generator)[:12] for _ in range(3)])
    cells[1, 8:] = -1
    found = trajectory_sum(tokens, cells, grid)
    for clip in range(3):
        assert found[clip].item() == pytest.approx(literal(tokens[clip], cells[clip], grid), abs=1e-5)
        assert trajectory_sum(tokens[clip : clip + 1], cells[clip : clip + 1], grid).item() == found[clip].item()
    order = torch.randperm(12, generator=generator)
    torch.testing.assert_close(trajectory_sum(tokens[:, order], cells[:, order], grid), found)


@pytest.mark.parametrize("name", ["timesformer_demo", "video_swin_demo", "vit_demo"])
def test_of_a_model_behind_each_layer(name):
    backbone = randomise(build_backbone(name, 3))
    spec = backbone.input_spec
    clips = torch.randint(0, 256, (2, 3, spec.frames, spec.height, spec.width), dtype=torch.uint8)
    reducer = KeepEvery(2, (Place("embedding"), Place("layer", 1)), ragged=True)
    last = backbone.layers[-1].index
    for layer in (1, last):
        with torch.no_grad():
            state = backbone.run(backbone.embed(clips, reducer), 0, layer + 1, reducer=reducer)
        found = trajectory_sums(backbone, clips, reducer, layer)
        for clip in range(2):
            own = state.tokens[clip, state.class_tokens :]
            expected = literal(own, state.cell_numbers()[clip], state.grid)
            assert found[clip].item() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(trajectory_sums(backbone, clips, reducer), trajectory_sums(backbone, clips, reducer, last))


def test_what_is_refused(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match=r"no layer 7 .* its layers are 0, 1, 2, 3"):
        trajectory_sums(tiny_swin, tiny_clips, layer=7)
    with pytest.raises(ValueError, match="at least one token in every clip"):
        trajectory_sum(torch.ones(2, 1, 3), torch.tensor([[0], [-1]]), (1, 1, 1))
    with pytest.raises(ValueError, match=r"a cell for each of \(2, 1\) tokens, got \(2, 3\)"):
        trajectory_sum(torch.ones(2, 1, 3), torch.zeros(2, 3, dtype=torch.int64), (1, 1, 3))
