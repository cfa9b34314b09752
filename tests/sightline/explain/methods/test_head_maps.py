from dataclasses import replace

import pytest
import torch

from sightline.backbones import Backbone, Observer, build_backbone
from sightline.backbones.families.timesformer import TimeSformer
from sightline.backbones.families.video_swin import VideoSwin
from sightline.backbones.parts import attention
from sightline.explain import CellMap, head_maps
from sightline.types import InputSpec, Unit
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.backbones.test_mvit import CASES as MVIT_CASES
from tests.sightline.backbones.test_mvit import MViT
from tests.sightline.backbones.test_video_swin import CASES as SWIN_CASES
from tests.sightline.explain.planted import IDENTITY, SWIN_ODD, TIMESFORMER

AWKWARD = {
    "swin, padded windows": lambda: VideoSwin(SWIN_CASES["padded windows"], IDENTITY),
    "swin, all padded": lambda: VideoSwin(SWIN_ODD, IDENTITY),
    "swin, not shifted": lambda: VideoSwin(replace(SWIN_ODD, shifted_windows=False), IDENTITY),
    "mvit, odd grids": lambda: MViT(MVIT_CASES["odd grids"], IDENTITY),
    "mvit, odd strides": lambda: MViT(MVIT_CASES["odd strides"], IDENTITY),
}
BUILD = {name: lambda name=name: build_backbone(name, 4) for name in DEMO_VARIANTS} | AWKWARD


def clips_for(backbone: Backbone, count: int = 2) -> torch.Tensor:
    spec = backbone.input_spec
    shape = (count, 3, spec.frames, spec.height, spec.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


def family_total(backbone: Backbone, unit: Unit, found: CellMap) -> torch.Tensor:
    """What all cells of a map receive together under uniform attention, by the documentation."""
    cells = found.values[0].numel()
    if unit.site == "temporal":
        return torch.tensor(float(cells))
    if unit.site == "spatial":
        per_frame = cells // found.values.shape[1]
        return torch.tensor(found.values.shape[1] * per_frame / (1 + per_frame))
    if backbone.family == "video_swin":
        window = [min(w, g) for w, g in zip(backbone.config.window, found.values.shape[1:], strict=True)]
        return torch.tensor(cells / (window[0] * window[1] * window[2]))
    return torch.tensor(cells / (cells + 1) if backbone.family in ("mvit", "timesformer") else 1.0)


@pytest.mark.parametrize("name", BUILD)
@torch.no_grad()
def test_uniform_attention_gives_a_constant_map_of_the_documented_mass(name: str):
    backbone = BUILD[name]().eval()
    for parameter in backbone.parameters():
        parameter.zero_()
    for unit, found in head_maps(backbone, clips_for(backbone), backbone.units("heads")).items():
        torch.testing.assert_close(found.values, found.values[:, :1, :1, :1].expand_as(found.values))
        torch.testing.assert_close(found.values[0].sum(), family_total(backbone, unit, found))
        for mode in ("nearest", "trilinear"):
            pixels = found.pixels(mode)
            torch.testing.assert_close(pixels, pixels[:, :1, :1, :1].expand_as(pixels))


@pytest.mark.parametrize("name", BUILD)
@torch.no_grad()
def test_maps_are_the_weights_painted_into_the_keys_boxes(name: str):
    """Another way to the same picture: every key's box is painted with what the queries give it."""
    backbone = randomise(BUILD[name]())
    clips = clips_for(backbone)
    units = [unit for unit in backbone.units("heads") if unit.head == 1]
    maps = head_maps(backbone, clips, units)
    observer = Observer(attention=True)
    backbone(clips, observer=observer)
    spec = backbone.input_spec
    assert list(maps) == units
    for unit in units:
        seen = observer.sites[unit.layer, unit.site]
        received = (seen.attention[:, :, 1] * seen.layout.query_weights.unsqueeze(3)).sum(dim=2)
        canvas = torch.full((2, spec.frames, spec.height, spec.width), torch.nan)
        boxes = seen.layout.boxes(spec)[0].flatten(0, 1).tolist()
        for key, (t0, t1, y0, y1, x0, x1) in enumerate(boxes):
            canvas[:, t0:t1, y0:y1, x0:x1] = received.flatten(1)[:, key, None, None, None]
        torch.testing.assert_close(maps[unit].pixels(), canvas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DEMO_VARIANTS)
@torch.no_grad()
def test_a_map_depends_on_its_own_clip_and_head_only(name: str):
    backbone = randomise(build_backbone(name, 4))
    clips = clips_for(backbone, 3)
    units = backbone.units("heads")
    together = head_maps(backbone, clips, units)
    chosen = [units[-1], units[len(units) // 2]]
    alone = head_maps(backbone, clips[1:2], chosen)
    for unit in chosen:
        torch.testing.assert_close(alone[unit].values, together[unit].values[1:2], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together[units[0]].values, together[units[1]].values, rtol=1e-2)


@torch.no_grad()
def test_only_the_layers_asked_for_compute_weights(monkeypatch: pytest.MonkeyPatch):
    backbone = randomise(build_backbone("video_swin_demo", 4))
    stepwise, fused = [], []
    observed, plain = attention.attention_with_weights, attention.attention
    room = "sightline.backbones.families.video_swin_attention"
    monkeypatch.setattr(f"{room}.attention_with_weights", lambda *a, **k: stepwise.append(1) or observed(*a, **k))
    monkeypatch.setattr(f"{room}.attention", lambda *a: fused.append(1) or plain(*a))
    head_maps(
        backbone, clips_for(backbone), [Unit(4, "attention", 7), Unit(1, "attention", 0), Unit(4, "attention", 2)]
    )
    # Layers 0, 2 and 3 run fused; layer 5, after the last one asked for, does not run.
    assert (len(stepwise), len(fused)) == (2, 3)


def test_maps_are_plain_values_of_the_clips_size(tiny_swin, tiny_clips):
    unit = Unit(2, "attention", 3)
    found = head_maps(tiny_swin, tiny_clips, [unit, unit])[unit]
    assert (found.values.dtype, found.values.shape, found.cell) == (torch.float32, (3, 2, 4, 4), (2, 8, 8))
    assert not found.values.requires_grad
    assert found.pixels().shape == (3, 4, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = head_maps(tiny_swin, tiny_clips, [unit])[unit]
    assert half.values.dtype == torch.float32
    torch.testing.assert_close(half.values, found.values, rtol=0.2, atol=0.01)  # bfloat16 keeps 8 bits


@torch.no_grad()
def test_tokens_that_were_dropped_leave_their_cells_empty():
    """Joint attention on a state without some tokens: the others keep their cells."""
    backbone = randomise(TimeSformer(replace(TIMESFORMER, attention="joint"), IDENTITY))
    state = backbone.embed(clips_for(backbone))
    kept = torch.tensor([[0, 3, 7, 44], [1, 3, 8, 20]])
    exists = torch.ones(2, 4, dtype=torch.bool)
    exists[1, 3] = False  # the second clip kept one token fewer
    dropped = state.select(kept, exists)
    observer = Observer(attention=True)
    backbone.run(dropped, 0, 1, observer=observer)
    seen = observer.sites[0, "attention"]
    assert seen.layout.cells.tolist() == [[[-2, 0, 3, 7, 44]], [[-2, 1, 3, 8, -1]]]
    row = seen.attention[:, :, 1, 0]
    found = CellMap.of_keys(row, seen.layout, backbone.input_spec).values.flatten(1)
    assert torch.equal(found[0, kept[0]], row[0, 0, 1:])
    assert torch.equal(found[1, kept[1, :3]], row[1, 0, 1:4])
    assert (found != 0).sum(dim=1).tolist() == [4, 3]


def test_products_are_taken_cell_by_cell():
    spec = InputSpec(2, 4, 4)
    first = CellMap(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), (1, 4, 2), spec)
    second = CellMap(torch.tensor([[[[10.0, 0.0]], [[1.0, 0.5]]]]), (1, 4, 2), spec)
    product = first.times(second)
    assert product.values.tolist() == [[[[10.0, 0.0]], [[3.0, 2.0]]]]
    assert product.pixels()[0, :, 0].tolist() == [[10.0, 10.0, 0.0, 0.0], [3.0, 3.0, 2.0, 2.0]]
    with pytest.raises(ValueError, match=r"same cells.*1x2x1x2 cells of 1x4x2.*cells of 1x4x4"):
        first.times(CellMap(torch.ones(1, 2, 1, 1), (1, 4, 4), spec))


def test_pixels_by_hand():
    # Two cells of three pixels in a row of five: the second reaches beyond the clip.
    found = CellMap(torch.tensor([[[[0.0, 6.0]]]]), (1, 1, 3), InputSpec(1, 1, 5))
    assert found.pixels("nearest")[0, 0, 0].tolist() == [0.0, 0.0, 0.0, 6.0, 6.0]
    # Centres at 1 and 4: 2 lies a third of the way between them.
    torch.testing.assert_close(found.pixels("trilinear")[0, 0, 0], torch.tensor([0.0, 0.0, 2.0, 4.0, 6.0]))
    with pytest.raises(ValueError, match="'nearest' or 'trilinear', got 'cubic'"):
        found.pixels("cubic")


@pytest.mark.parametrize("size", [41, 47, 49, 55, 61])
def test_every_pixel_belongs_to_its_own_cell(size: int):
    """Sizes at which multiplying by a rounded 1 / size puts first pixels into the cell before."""
    values = torch.arange(9.0).view(1, 1, 1, 9)
    pixels = CellMap(values, (1, 1, size), InputSpec(1, 1, 9 * size)).pixels()
    assert torch.equal(pixels.flatten(), torch.arange(9.0).repeat_interleave(size))


def test_what_does_not_exist_is_refused():
    backbone = build_backbone("timesformer_demo", 4).eval()
    clips = clips_for(backbone)
    for unit, message in [
        (Unit(6, "spatial", 0), "timesformer has no layer 6; its layers are 0, 1, 2, 3, 4, 5"),
        (Unit(2, "spatial", 4), "no layer 2 spatial head 4; the heads there are 0, 1, 2, 3"),
        (Unit(2, "attention", 0), "no site 'attention'; it has 'temporal' and 'spatial'"),
        (Unit(2), "one head, got layer 2; name its site and head"),
    ]:
        with pytest.raises(ValueError, match=message):
            head_maps(backbone, clips, [Unit(0, "spatial", 0), unit])
    bare = backbone.without_heads([Unit(1, "temporal", head) for head in range(4)])
    with pytest.raises(ValueError, match="the heads there are all removed"):
        head_maps(bare, clips, [Unit(1, "temporal", 0)])
    with pytest.raises(ValueError, match=r"training mode; call eval\(\) first"):
        head_maps(backbone.train(), clips, [Unit(0, "spatial", 0)])
