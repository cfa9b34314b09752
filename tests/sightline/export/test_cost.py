"""Counts against fvcore, a closed form and the published sizes; latency."""

import itertools
import shutil
import warnings

import pytest
import torch
from torch import nn

from sightline.backbones import VARIANTS, Observer, build_backbone
from sightline.export import latency
from sightline.export.counting import count_cost, percent_change
from sightline.export.latency import compare_latency, measure_latency
from sightline.export.peak_memory import peak_memory
from sightline.tokens import KeepRandom
from sightline.types import InputSpec, Unit

# The layers that the published experiment removes from Video Swin-S at depth 6.
REMOVED = (7, 9, 15, 17, 19, 21)


class Unfused(nn.Module):
    """The forward pass with attention as plain matrix products, which is all that fvcore can count."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, clips):
        return self.backbone(clips, observer=Observer(attention=True))


def fvcore_macs(backbone) -> int:
    from fvcore.nn import FlopCountAnalysis

    spec = backbone.input_spec
    clips = torch.zeros(1, 3, spec.frames, spec.height, spec.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(Unfused(backbone).eval(), clips)
        return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def demo_macs(classes: int, removed: tuple[int, ...] = ()) -> int:
    """Closed form for video_swin_demo, 8x64x64: multiply-adds, and 5 per element of every LayerNorm."""
    n, d = 4 * 8 * 8, 48  # cells after 2x8x8 patches, width
    total = n * d * 3 * 2 * 8 * 8 + 5 * n * d
    index = 0
    for stage, depth in enumerate((2, 2, 2)):
        if stage:  # merging 2x2 cells: LayerNorm over 4d channels, then 4d -> 2d
            total += 5 * n * d + (n // 4) * (4 * d) * (2 * d)
            n, d = n // 4, 2 * d
        for _ in range(depth):
            if index not in removed:  # two LayerNorms; qkv, output, MLP of 4d; q k^T and A V within windows of 16
                total += 2 * 5 * n * d + (3 + 1 + 8) * n * d * d + 2 * n * 16 * d
            index += 1
    return total + 5 * n * d + d * classes


@pytest.mark.parametrize("removed", [(), (1, 3, 5)])
def test_demo_size_agrees_with_fvcore_and_with_a_closed_form(removed):
    backbone = build_backbone("video_swin_demo", 7, removed_layers=removed)
    macs = count_cost(backbone).macs
    assert macs == demo_macs(7, removed)
    assert macs == fvcore_macs(backbone)


def test_pruned_heads_cost_less_by_what_they_computed():
    backbone = build_backbone("video_swin_demo", 7)
    smaller = backbone.without_heads([Unit(3, "attention", 1)])
    n, d, head = 4 * 4 * 4, 96, 24  # layer 3 is in the second stage: 4 heads of 24
    full, cost = count_cost(backbone), count_cost(smaller)
    assert full.macs - cost.macs == 4 * n * d * head + 2 * n * 16 * head
    bias_table = 7 * 3 * 3
    assert full.params - cost.params == 4 * d * head + 3 * head + bias_table
    assert cost.macs == fvcore_macs(smaller)


def test_published_size_of_video_swin_s():
    full = build_backbone("video_swin_s", 20)
    cost = count_cost(full)
    assert cost.params == 49_524_458
    assert cost.macs / 1e9 == pytest.approx(83.06, abs=0.005)


def test_published_savings_of_video_swin_s():
    full = build_backbone("video_swin_s", 101)
    cost, pruned = count_cost(full), count_cost(full.without(REMOVED))
    assert percent_change(pruned.macs, cost.macs) == pytest.approx(-23.5, abs=0.05)
    assert percent_change(pruned.params, cost.params) == pytest.approx(-21.8, abs=0.05)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("demo")])
def test_counting_works_for_every_family_and_leaves_nothing_behind(name):
    backbone = build_backbone(name, 5)
    backbone.layer_modules()[0].eval()  # a frozen part
    modes = [module.training for module in backbone.modules()]
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    spec = backbone.input_spec
    clips = torch.rand(1, 3, spec.frames, spec.height, spec.width)
    generator = torch.get_rng_state()
    cost = count_cost(backbone)
    # fvcore reads the cost of an einsum (in MViT's relative positions) from a report with four digits.
    assert cost.macs == pytest.approx(fvcore_macs(build_backbone(name, 5)), rel=1e-6 if name == "mvit_demo" else 0)
    torch.set_rng_state(generator)
    assert count_cost(backbone) == cost
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert all(p.device.type == "cpu" and p.requires_grad for p in backbone.parameters())
    backbone(clips).sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_count_does_not_depend_on_precision(dtype):
    backbone = build_backbone("video_swin_demo", 7)
    assert count_cost(backbone.to(dtype)).macs == demo_macs(7)


def test_latency_restores_modes_and_generator():
    backbone = build_backbone("video_swin_demo", 7).train()
    backbone.layer_modules()[2].eval()
    modes = [module.training for module in backbone.modules()]
    state = torch.get_rng_state()
    timing = measure_latency(backbone, batch=2, repeats=3, warmup=1)
    assert timing.median_ms > 0
    assert timing.iqr_ms >= 0
    assert timing.clips_per_s == pytest.approx(2000 / timing.median_ms)
    assert [module.training for module in backbone.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_latency_restores_modes_after_an_exception(monkeypatch):
    backbone = build_backbone("video_swin_demo", 7).train()
    monkeypatch.setattr(latency, "_forward_ms", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_latency(backbone)
    assert all(module.training for module in backbone.modules())


def test_models_take_turns_and_warm_up_is_not_timed(monkeypatch):
    models = {name: build_backbone("video_swin_demo", 7) for name in "ab"}
    names = {id(model): name for name, model in models.items()}
    turns, clock = [], itertools.count()

    def forward_ms(backbone, clips):
        assert not backbone.training
        assert not torch.is_grad_enabled()
        turns.append(names[id(backbone)])
        return float(next(clock))

    monkeypatch.setattr(latency, "_forward_ms", forward_ms)
    timing = compare_latency(models, batch=4, repeats=4, warmup=1)
    assert "".join(turns) == "abbaabbaab"
    # a was timed at 3, 4, 7, 8 and b at 2, 5, 6, 9, after one untimed turn each
    assert timing["a"].median_ms == 5.5
    assert timing["b"].median_ms == 5.5
    assert timing["a"].iqr_ms == 3.5  # quartiles 3.75 and 7.25
    assert timing["a"].clips_per_s == pytest.approx(4000 / 5.5)
    # Rates 4000 / (8, 7, 4, 3): quartiles three quarters of the way to the second and a quarter on from the third.
    slow, fast = (500 + 0.75 * (4000 / 7 - 500), 1000 + 0.25 * (4000 / 3 - 1000))
    assert timing["a"].clips_per_s_iqr == pytest.approx(fast - slow)


def test_a_model_is_timed_with_its_reducer(monkeypatch):
    whole, fewer = build_backbone("vit_demo", 7), build_backbone("vit_demo", 7)
    lengths = []
    monkeypatch.setattr(latency, "_forward_ms", lambda run, clips: run(clips) is None or 1.0)
    for model in (whole, fewer):
        model.layer_modules()[0].norm1.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    compare_latency({"whole": whole, "fewer": fewer}, repeats=1, warmup=0, reducers={"fewer": KeepRandom(0.25)})
    assert lengths == [256, 64]
    measure_latency(fewer, repeats=1, warmup=0, reducer=KeepRandom(0.5))
    assert lengths[2:] == [128]


def test_fewer_tokens_take_less_memory():
    model = build_backbone("vit_demo", 7, {"patch": [2, 4, 4]})  # so many tokens that the layers need the most
    assert peak_memory(model, 4, KeepRandom(0.25)) < peak_memory(model, 4)


def test_compiled_models_are_timed_after_a_warm_up(monkeypatch):
    backbone = build_backbone("video_swin_demo", 7)
    compiled, timed = [], []
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(model) or (lambda clips: model(clips)))
    monkeypatch.setattr(latency, "_forward_ms", lambda run, clips: timed.append(run) or 1.0)
    measure_latency(backbone, repeats=2, warmup=1, compiled=True)
    assert compiled == [backbone]
    assert len(timed) == 3
    assert backbone not in timed
    with pytest.raises(ValueError, match="warmup of at least 1, got 0"):
        measure_latency(backbone, warmup=0, compiled=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and g++ is not here")
def test_latency_of_a_compiled_model(tiny_swin):
    assert measure_latency(tiny_swin, repeats=2, warmup=1, compiled=True).median_ms > 0


class Squares(nn.Module):
    """As much of a backbone as is measured; 24 weights, one buffer of 3."""

    input_spec = InputSpec(2, 4, 4)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(24))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, clips):
        pixels = clips.float()  # 4 bytes for each of 96 values a clip
        squares = pixels * pixels  # as many again
        del pixels
        return squares.sum(dim=(1, 2, 3, 4)) * squares.mean()


def test_peak_memory_by_hand():
    model = Squares()
    for batch in (1, 5):
        values = batch * 3 * 2 * 4 * 4
        assert peak_memory(model, batch) == 4 * (24 + 3) + values + 2 * 4 * values


def test_peak_memory_grows_with_the_batch_and_shrinks_with_the_model():
    full = build_backbone("video_swin_demo", 7)
    small = full.without([0, 1, 2, 3, 4, 5])
    one, four = peak_memory(full), peak_memory(full, 4)
    weights = sum(tensor.nbytes for tensor in (*full.parameters(), *full.buffers()))
    assert weights < one < four < 4 * one
    # Without layers only the embedding's tokens and patch merging are left to hold.
    assert peak_memory(small) < one
    assert full.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_on_a_gpu_does_not_count_other_models():
    model = build_backbone("video_swin_demo", 7).cuda()
    alone = peak_memory(model, 2)
    other = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert peak_memory(model, 2) == alone > sum(p.nbytes for p in model.parameters())
    del other


def test_latency_refuses_what_cannot_be_measured():
    backbone = build_backbone("video_swin_demo", 7)
    with pytest.raises(ValueError, match="batch and repeats of at least 1"):
        measure_latency(backbone, repeats=0)
    with pytest.raises(ValueError, match="at least one backbone"):
        compare_latency({})
    with pytest.raises(ValueError, match="on cpu and cuda, but the backbone is on meta"):
        measure_latency(backbone.to("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_latency_on_a_gpu_in_half_precision():
    backbone = build_backbone("video_swin_demo", 7).to("cuda", torch.float16)
    assert measure_latency(backbone, batch=2, repeats=3).median_ms > 0
