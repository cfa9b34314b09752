"""GradNorm against a slow one that runs the rest of the model anew for every layer, and loops over cells."""

import pytest
import torch
import torch.nn.functional as F

from sightline.backbones import Backbone, build_backbone
from sightline.explain.methods.grad_norm import grad_norm
from tests.conftest import DEMO_VARIANTS, TINY_SWIN, randomise


def literal(backbone: Backbone, clip, label: int) -> torch.Tensor:
    """Equation 7 of one clip (1, 3, T, H, W), on the embedding's grid."""
    first = backbone.embed(clip)
    total = torch.zeros(first.grid)
    state = first
    for info in backbone.layers:
        index = info.index
        # What stands before the layer belongs to none; then the layer and all that follows, from detached tokens.
        entered = backbone.before_layer(index, state)
        entered = entered.with_tokens(entered.tokens.detach().requires_grad_())
        layer = backbone.layer_modules()[index]
        own = entered
        for site in layer.sites:
            own = layer.project(own, site.name, layer.attend(own, site.name))
        own = layer.mlp_step(own)
        loss = -F.log_softmax(backbone.classify(backbone.run(own, index + 1)), dim=1)[0, label]
        [gradient] = torch.autograd.grad(loss, entered.tokens)
        norms = gradient[0, entered.class_tokens :].abs().sum(dim=1).view(entered.grid)
        sizes = [fine // coarse for fine, coarse in zip(first.grid, entered.grid, strict=True)]
        for t in range(first.grid[0]):
            for y in range(first.grid[1]):
                for x in range(first.grid[2]):
                    share = norms[t // sizes[0], y // sizes[1], x // sizes[2]] / (sizes[0] * sizes[1] * sizes[2])
                    total[t, y, x] += share
        state = backbone.run(state, index, index + 1)
    return total


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_against_a_run_for_every_layer(name):
    backbone = randomise(build_backbone(name, 5))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([1, 4])
    found = grad_norm(backbone, clips, labels)
    t, h, w = found.cell
    assert (t * found.grid[0], h * found.grid[1], w * found.grid[2]) == (spec.frames, spec.height, spec.width)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    # The second of two clips: what stands beside it in the batch changes nothing.
    torch.testing.assert_close(found.values[1], literal(backbone, clips[1:], 4), rtol=2e-3, atol=1e-6)


def test_a_certain_prediction_keeps_all_of_its_gradient(tiny_swin, tiny_clips):
    with torch.no_grad():
        tiny_swin.head.weight.mul_(30)
        labels = tiny_swin(tiny_clips).argmax(dim=1)
        sure = tiny_swin(tiny_clips).softmax(dim=1).amax(dim=1) == 1
    assert sure.any()
    found = grad_norm(tiny_swin, tiny_clips, labels).values
    exact = grad_norm(tiny_swin.double(), tiny_clips, labels).values
    for clip in sure.nonzero().flatten():
        # The loss is so small that its last digits are those of a difference of large logits.
        torch.testing.assert_close(found[clip], exact[clip], rtol=5e-3, atol=0)


def test_pruned_layers_and_frozen_parameters(tiny_swin, tiny_clips):
    labels = torch.tensor([0, 1, 2])
    plain = grad_norm(tiny_swin, tiny_clips, labels)
    tiny_swin.requires_grad_(False)
    torch.testing.assert_close(grad_norm(tiny_swin, tiny_clips, labels).values, plain.values)
    # Without its first stage every layer runs on the coarser grid; the map keeps the embedding's.
    coarse = grad_norm(tiny_swin.without([0, 1]), tiny_clips, labels)
    assert (coarse.grid, coarse.cell) == (plain.grid, plain.cell) == ((2, 8, 8), (2, 4, 4))
    blocks = coarse.values.unflatten(2, (4, 2)).unflatten(4, (4, 2))
    assert (blocks == blocks[:, :, :, :1, :, :1]).all()


def test_what_is_refused(tiny_swin, tiny_clips):
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="evaluation mode"):
        grad_norm(tiny_swin.train(), tiny_clips, labels)
    with pytest.raises(ValueError, match="at least one layer"):
        grad_norm(tiny_swin.eval().without(range(len(TINY_SWIN["depths"]) * 2)), tiny_clips, labels)
