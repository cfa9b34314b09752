"""Linear layers by another kernel: the same numbers, only where it was measured faster, and nowhere else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.backbones import VARIANTS, build_backbone
from sightline.backbones.parts import linear as linear_module
from sightline.backbones.parts import linear_kernels
from sightline.backbones.parts.linear import Linear, linear, smaller_linear
from sightline.backbones.parts.linear_kernels import (
    SIZES,
    LinearKernels,
    Measured,
    current_kernels,
    find_onednn,
    using_kernels,
)
from sightline.relevance.ablation import ablated_logits
from tests.conftest import randomise

ALL = LinearKernels({0: Measured("onednn", 2.0, 0.0)})
NONE = LinearKernels()
needs_onednn = pytest.mark.skipif(find_onednn() is None, reason="this PyTorch has no linear layer of oneDNN")
# Small layers of the published kind: heads and windows as in the full sizes, clips that take no time.
SMALL = {
    "video_swin_s": {"frames": 4, "size": 64, "depths": [1, 1, 2, 1]},
    "mvit_v2_s": {"frames": 4, "size": 64},
    "timesformer_base": {"frames": 2, "size": 64, "depth": 2},
    "vit_base_videomae": {"frames": 4, "size": 64, "depth": 2},
}


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch: pytest.MonkeyPatch):
    """Let small models have products that are large enough."""
    monkeypatch.setattr(linear_module, "SIZES", (1,))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the weights that oneDNN's kernel is called with."""
    chosen = linear_kernels._chosen()
    kernel, seen = chosen.onednn, []
    if kernel is None:
        pytest.skip("this PyTorch has no linear layer of oneDNN")

    def counted(x, weight, bias):
        assert x.is_contiguous()
        assert weight.is_contiguous(), "of a strided weight the kernel is hundreds of times slower"
        seen.append(tuple(weight.shape))
        return kernel(x, weight, bias)

    monkeypatch.setattr(chosen, "onednn", counted)
    return seen


def clips_for(backbone, count=2):
    spec = backbone.input_spec
    shape = (count, 3, spec.frames, spec.height, spec.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def assert_same_logits(backbone, clips, calls):
    with using_kernels(NONE):
        expected = backbone(clips)
    assert not calls
    with using_kernels(ALL):
        found = backbone(clips)
    assert calls
    # Both sum the same products in float32 in another order; 1e-5 of the largest logit is some ten roundings.
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_demo_models_give_the_same_logits(backbone, clips, calls):
    assert_same_logits(backbone, clips, calls)


@pytest.mark.parametrize("name", SMALL)
def test_layers_of_published_sizes_give_the_same_logits(name, calls):
    backbone = randomise(build_backbone(name, 7, SMALL[name]))
    assert_same_logits(backbone, clips_for(backbone), calls)


@needs_onednn
def test_ablated_logits_and_their_noise_floor_are_the_same(backbone, clips):
    units = backbone.units("layers")[::3] + backbone.units("heads")[::7]
    found = {}
    for name, kernels in (("own", NONE), ("onednn", ALL)):
        with using_kernels(kernels):
            found[name] = ablated_logits(backbone, clips, units, control=True)
    scale = found["own"].base.abs().max()
    assert (found["onednn"].units - found["own"].units).abs().max() <= 1e-5 * scale
    for logits in found.values():
        assert (logits.control - logits.base).abs().max() <= 1e-5 * scale


@torch.no_grad()
def test_every_layer_with_many_rows_goes_by_the_choice(backbone, clips, calls):
    """A block of another library, or a product that a family writes itself, is not left out."""
    own = []
    with pytest.MonkeyPatch.context() as patch, using_kernels(ALL):
        plain = F.linear
        patch.setattr(F, "linear", lambda x, w, b=None: own.append(x.numel() // x.shape[-1]) or plain(x, w, b))
        backbone(clips)
    assert calls
    assert all(rows < linear_kernels.FEW_ROWS for rows in own), own


def test_inputs_of_all_kinds(calls):
    """Leading dimensions, views, broadcast rows, columns of a weight, no bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 10, 8, 32, generator=generator)
    layer = nn.Linear(64, 48)
    for value, weight, bias in (
        (x, layer.weight[:, :32], layer.bias),
        (x.transpose(1, 2), layer.weight[:, 16:48], None),
        (x[0, :1, :1].expand(9, 16, 32), layer.weight[7:20, 3:35], layer.bias[7:20]),
        (torch.randn(32, 640, generator=generator).T, layer.weight[:, :32], layer.bias),
    ):
        with torch.no_grad(), using_kernels(ALL):
            found = linear(value, weight, bias)
        expected = F.linear(value.double(), weight.double(), None if bias is None else bias.double())
        assert found.shape == expected.shape
        assert not found.requires_grad
        # Sums of 32 products of size 1.
        torch.testing.assert_close(found.double(), expected.detach(), rtol=0, atol=1e-5)
    assert len(calls) == 4


def test_training_is_untouched(tiny_swin, tiny_clips, calls):
    gradients = []
    for kernels in (NONE, ALL):
        model = copy.deepcopy(tiny_swin).train()
        with using_kernels(kernels):
            model(tiny_clips)[:, 0].sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert not calls
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_what_else_stays_with_pytorch(calls):
    layer, x = Linear(32, 48), torch.randn(128, 32)
    with using_kernels(ALL):
        layer(x[:15])  # few rows
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear_module, "SIZES", (128 * 32 * 48 + 1,))
            layer(x)  # little to compute
        layer.double()(x.double())
        layer.float()
        layer.to("meta")(x.to("meta"))
        layer = Linear(32, 48)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        torch.jit.trace(layer, x, check_trace=False)  # the check runs the layer as it is
        with torch.backends.mkldnn.flags(enabled=False):
            layer(x)
        Linear(0, 48)(torch.randn(128, 0))
        assert not calls
        layer(x)
    assert calls == [(48, 32)]


@torch.no_grad()
def assert_exports_without_it(backbone, clips, calls, strict):
    with using_kernels(ALL):
        program = torch.export.export(backbone, (clips,), strict=strict)
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
    assert not calls


def test_an_exported_program_knows_nothing_of_it(tiny_swin, tiny_clips, calls):
    assert_exports_without_it(tiny_swin, tiny_clips, calls, strict=False)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_know_nothing_of_it(backbone, clips, calls, strict):
    assert_exports_without_it(backbone, clips, calls, strict)


@torch.no_grad()
def test_operations_are_counted_alike():
    layer, x, counts = Linear(32, 48), torch.randn(4, 128, 32), []
    for kernels in (NONE, ALL):
        with using_kernels(kernels), FlopCounterMode(display=False) as counter:
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts == [2 * 4 * 128 * 32 * 48] * 2


@torch.no_grad()
def test_changed_weights_count_at_once(calls):
    """Nothing is kept of a weight, not by version, not by address."""
    layer, x = Linear(32, 48), torch.randn(128, 32)
    with using_kernels(ALL):
        layer(x)
        layer.weight.data = torch.randn(48, 32)
        layer.bias.mul_(2)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
    assert len(calls) == 2


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_all_linear_layers_are_taken_over(name):
    with torch.device("meta"):
        backbone = build_backbone(name, 7)
    plain = [key for key, module in backbone.named_modules() if type(module) is nn.Linear]
    assert not plain
    assert type(smaller_linear(Linear(8, 8), rows=torch.arange(4))) is Linear


def test_the_choice_is_by_measurement(monkeypatch):
    """oneDNN here is PyTorch's own kernel: run five times where a size is to be slower, else computed once and kept."""
    answers, slow = {}, SIZES[:2]

    def fake(x, weight, bias):
        size = x.numel() * len(weight)
        if any(0.9 * s < size <= s for s in slow):  # the sides of a weight are whole numbers
            for _ in range(4):
                F.linear(x, weight, bias)
            return F.linear(x, weight, bias)
        key = (id(x), id(weight))
        if key not in answers:
            answers[key] = (x, weight, F.linear(x, weight, bias))  # kept alive, so that no id comes again
        return answers[key][2]

    monkeypatch.setattr(linear_kernels, "find_onednn", lambda: fake)
    found = linear_kernels.measure()
    assert [measured.kernel for measured in found.sizes.values()] == ["pytorch"] * 2 + ["onednn"] * 3
    assert found.sizes[SIZES[0]].times_faster < 0.5
    assert found.kernel(0) == found.kernel(SIZES[2] - 1) == "pytorch"
    assert found.kernel(SIZES[2]) == found.kernel(10**12) == "onednn"


def test_nearly_as_fast_is_not_faster(monkeypatch):
    """The same kernel on both sides: no noise makes it 1.25 times as fast as itself."""
    monkeypatch.setattr(linear_kernels, "find_onednn", lambda: F.linear)
    assert {measured.kernel for measured in linear_kernels.measure().sizes.values()} == {"pytorch"}


@pytest.mark.parametrize("wrong", [1e-4, float("nan")])
def test_a_kernel_with_other_results_is_not_used(monkeypatch, wrong):
    monkeypatch.setattr(linear_kernels, "find_onednn", lambda: lambda x, w, b: torch.full((len(x), len(w)), wrong))
    found = linear_kernels.measure()
    assert {measured.kernel for measured in found.sizes.values()} == {"pytorch"}


def failing(*_):
    raise RuntimeError("not on this machine")


@pytest.mark.parametrize("operator", [None, failing, lambda *_: torch.zeros(4, 4)], ids=["none", "fails", "wrong"])
@torch.no_grad()
def test_without_a_working_operator_pytorch_stands_in(monkeypatch, operator):
    class Operators:
        pass

    operators = Operators()
    if operator is not None:
        operators._linear_pointwise = Operators()
        operators._linear_pointwise.default = operator
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    monkeypatch.setattr(linear_kernels, "_CHOSEN", None)
    assert find_onednn() is None
    assert current_kernels() == LinearKernels()
    layer, x = Linear(64, 64), torch.randn(128, 64)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@torch.no_grad()
def test_the_environment_switches_it_off(monkeypatch, calls):
    layer, x = Linear(64, 64), torch.randn(128, 64)
    with using_kernels(ALL):
        monkeypatch.setenv("SIGHTLINE_PLAIN_LINEAR", "1")
        layer(x)
        assert current_kernels() == NONE
        assert not calls
        monkeypatch.setenv("SIGHTLINE_PLAIN_LINEAR", "0")
        layer(x)
    assert calls


@torch.no_grad()
def test_every_number_of_threads_has_its_choice(monkeypatch):
    asked = []
    monkeypatch.setattr(linear_kernels, "measure", lambda: asked.append(torch.get_num_threads()) or ALL)
    monkeypatch.setattr(linear_kernels, "_CHOSEN", None)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            Linear(64, 64)(torch.randn(128, 64))
    finally:
        torch.set_num_threads(before)
    if find_onednn() is not None:
        assert asked == [1, 2]


@torch.no_grad()
def test_measuring_touches_nothing_of_the_caller():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        linear_kernels.measure()
        assert torch.is_autocast_enabled("cpu")
    assert counter.get_total_flops() == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
