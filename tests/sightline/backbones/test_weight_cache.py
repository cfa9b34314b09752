"""What is built from weights is never older than these, however they were changed."""

import copy
import gc

import torch
from torch import nn

from sightline.backbones.parts.weight_cache import WeightCache


def doubled(cache: WeightCache, parameter: torch.Tensor) -> torch.Tensor:
    return cache.of([parameter], lambda: parameter.detach() * 2)


@torch.no_grad()
def test_it_is_built_once_for_the_same_weights():
    cache, parameter = WeightCache(), nn.Parameter(torch.randn(4))
    first = doubled(cache, parameter)
    assert doubled(cache, parameter) is first
    assert cache.of([parameter], lambda: torch.zeros(1), key="another geometry").shape == (1,)


@torch.no_grad()
def test_every_kind_of_change_is_noticed():
    cache, parameter = WeightCache(), nn.Parameter(torch.randn(4))
    doubled(cache, parameter)
    parameter.mul_(3)
    assert torch.equal(doubled(cache, parameter), parameter * 2)
    parameter.data = torch.randn(4)  # what a move to a device or another dtype does
    assert torch.equal(doubled(cache, parameter), parameter * 2)
    other = nn.Parameter(parameter.data)  # another parameter in the same memory
    other.add_(1)
    assert torch.equal(doubled(cache, other), other * 2)


@torch.no_grad()
def test_a_new_parameter_at_an_old_address_is_noticed():
    """Memory that is freed is given out again at once; a key of addresses took the new table for the old."""
    cache = WeightCache()
    for round_ in range(50):
        parameter = nn.Parameter(torch.full((64, 4), float(round_)))
        assert torch.equal(doubled(cache, parameter), parameter * 2)
        del parameter
        gc.collect()


@torch.no_grad()
def test_a_replaced_bias_table_is_never_stale(tiny_swin, tiny_clips):
    attention = tiny_swin.layer_modules()[0].attn
    for seed in range(20):
        shape = attention.relative_position_bias_table.shape
        del attention.relative_position_bias_table
        table = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        attention.relative_position_bias_table = nn.Parameter(table)
        found = tiny_swin(tiny_clips)
        twin = copy.deepcopy(tiny_swin)
        assert torch.equal(found, twin(tiny_clips)), seed


def test_nothing_is_kept_where_gradients_are_needed():
    cache, parameter = WeightCache(), nn.Parameter(torch.randn(4))
    built = cache.of([parameter], lambda: parameter * 2)
    built.sum().backward()
    assert torch.equal(parameter.grad, torch.full((4,), 2.0))
    with torch.no_grad():
        kept = doubled(cache, parameter)
    assert cache.of([parameter], lambda: parameter * 2) is not kept


def test_a_copy_begins_empty():
    cache, parameter = WeightCache(), nn.Parameter(torch.randn(4))
    with torch.no_grad():
        kept = doubled(cache, parameter)
        assert doubled(copy.deepcopy(cache), parameter) is not kept
