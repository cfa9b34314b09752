"""What every registered family must do in half precision and when compiled."""

import shutil

import pytest
import torch

from tests.sightline.backbones.test_conformance import build_copy


@torch.no_grad()
def test_bf16_autocast_is_close(backbone, clips, logits):
    with torch.autocast("cpu", torch.bfloat16):
        half = backbone(clips)
    # bfloat16 keeps 8 bits; over some ten layers a few per cent of the logits' size are left to chance.
    assert (half.float() - logits).norm() < 0.05 * logits.norm()
    assert torch.equal(backbone(clips), logits)  # nothing of bf16 stayed in a cache


def test_training_under_bf16_autocast_reaches_every_parameter(backbone, clips):
    model = build_copy(backbone).train()
    with torch.autocast("cpu", torch.bfloat16):
        model(clips)[:, 0].sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and g++ is not here")
def test_a_compiled_model_gives_the_same_logits(backbone, clips, logits):
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True)
        torch.testing.assert_close(compiled(clips), logits, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_compiled_model_can_be_trained(backbone, clips):
    model = build_copy(backbone)
    # Captures the forward and backward graphs as training would, and leaves out the minutes of generating code.
    torch.compile(model, fullgraph=True, backend="aot_eager")(clips)[:, 0].sum().backward()
    expected = build_copy(backbone)
    expected(clips)[:, 0].sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    torch._dynamo.reset()
