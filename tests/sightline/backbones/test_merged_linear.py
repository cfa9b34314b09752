import torch
import torch.nn.functional as F
from torch import nn

from sightline.backbones.parts.merged_linear import MergedLinear


def test_merged_layers_are_dropped_when_a_weight_changes():
    first, second = nn.Linear(6, 4), nn.Linear(4, 5)
    merged = MergedLinear()
    x = torch.randn(7, 6)

    def agrees() -> bool:
        weight, bias = merged.of(first, second)
        return torch.allclose(F.linear(x, weight, bias), second(first(x)), atol=1e-6)

    assert merged.of(first, second) is None  # gradients are on
    with torch.no_grad():
        assert agrees()
        assert merged.of(first, second) is merged.of(first, second)
        for parameter in [*first.parameters(), *second.parameters()]:
            parameter.add_(1.0)
            assert agrees()
        first.weight = nn.Parameter(torch.randn(4, 6))
        assert agrees()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            second.bias.add_(1.0)
            assert merged.of(first, second)[0].dtype == torch.float32
        assert agrees()
        first.double(), second.double()
        assert merged.of(first, second)[0].dtype == torch.float64
        first.to("meta")
        assert merged.of(first, second) is None
