import pytest
import torch

from sightline.relevance.ablation import ablated_logits
from sightline.relevance.precision import forward_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_float32_undoes_what_is_around_it():
    a = torch.randn(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with forward_precision("float32", CPU):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


def test_gpu_settings_are_made_and_restored():
    """Only flags are set, which needs no GPU."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        for precision, expected in (("float32", ("highest", False)), ("tf32", ("high", True))):
            with forward_precision(precision, GPU):
                assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("medium", True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_bf16_differs_from_float32_and_stays_near(tiny_swin, tiny_clips):
    units = tiny_swin.units("heads")
    exact = ablated_logits(tiny_swin, tiny_clips, units).units
    with forward_precision("bf16", CPU):
        rounded = ablated_logits(tiny_swin, tiny_clips, units).units.float()
    assert 1e-4 < (exact - rounded).abs().max() < 0.3


def test_what_is_not_to_be_had_is_refused():
    with pytest.raises(ValueError, match="NVIDIA GPUs; the model is on cpu"), forward_precision("tf32", CPU):
        pass
    with pytest.raises(ValueError, match="one of float32, tf32, bf16, got 'half'"), forward_precision("half", CPU):
        pass
