"""Wherever the only bright patch of a clip is put, the map of a head that attends to bright patches peaks there."""

import pytest
import torch

from sightline.backbones import Backbone
from sightline.explain import head_maps
from sightline.types import Unit
from tests.sightline.explain.planted import CASES, HEAD, LARGE, marked_clips, planted


def sites_with_cells(name: str, cases: dict = CASES) -> tuple[Backbone, list[tuple[Unit, tuple[int, int, int]]]]:
    model, cells = cases[name]
    backbone = planted(model)
    return backbone, [(Unit(i.index, site.name, HEAD), cells[i.index]) for i in backbone.layers for site in i.sites]


def patch_steps(name: str, cell: tuple[int, int, int]) -> tuple[int, int, int]:
    """Every patch; in MViT the first patch of every key, because its pooling is planted to read no other."""
    patch = CASES[name][0].config.patch
    return cell if name == "mvit" else (1, patch, patch) if isinstance(patch, int) else patch


def assert_peaks_at_the_marks(
    pixels: torch.Tensor, corners: list[tuple[int, int, int]], cell: tuple[int, int, int], unit: Unit
) -> None:
    for place, corner in zip(pixels, corners, strict=True):
        first = [c // size * size for c, size in zip(corner, cell, strict=True)]
        inside = torch.zeros_like(place, dtype=torch.bool)
        inside[tuple(slice(f, f + size) for f, size in zip(first, cell, strict=True))] = True
        assert place[inside].min() > 1.5 * place[~inside].max(), (unit, corner)


@pytest.mark.parametrize("name", CASES)
def test_the_peak_is_where_the_mark_is(name: str):
    backbone, units = sites_with_cells(name)
    for steps in {patch_steps(name, cell) for _, cell in units}:
        clips, corners = marked_clips(backbone, steps)
        asked = [(unit, cell) for unit, cell in units if patch_steps(name, cell) == steps]
        maps = head_maps(backbone, clips, [unit for unit, _ in asked])
        for unit, cell in asked:
            pixels = maps[unit].pixels()
            assert pixels.shape == (len(clips), *clips.shape[2:])
            assert_peaks_at_the_marks(pixels, corners, cell, unit)
    assert len(units) == sum(len(i.sites) for i in backbone.layers)


@pytest.mark.parametrize(("name", "steps", "every"), [("swin", (2, 4, 4), 997), ("mvit", (2, 32, 32), 23)])
def test_windows_and_strides_of_the_published_models(name: str, steps: tuple[int, int, int], every: int):
    backbone, units = sites_with_cells(name, LARGE)
    clips, corners = marked_clips(backbone, steps, every)
    assert len(corners) > 5
    maps = head_maps(backbone, clips, [unit for unit, _ in units])
    for unit, cell in units:
        assert_peaks_at_the_marks(maps[unit].pixels(), corners, cell, unit)


@pytest.mark.parametrize("name", CASES)
def test_the_peak_stays_there_when_smoothed(name: str):
    backbone, units = sites_with_cells(name)
    unit, cell = units[-1]
    clips, corners = marked_clips(backbone, patch_steps(name, cell))
    smooth = head_maps(backbone, clips, [unit])[unit].pixels("trilinear")
    for place, corner in zip(smooth, corners, strict=True):
        peak = torch.unravel_index(place.argmax(), place.shape)
        assert [int(p) // size for p, size in zip(peak, cell, strict=True)] == [
            c // size for c, size in zip(corner, cell, strict=True)
        ]


@pytest.mark.parametrize("name", CASES)
def test_other_heads_do_not_leak_in(name: str):
    backbone, units = sites_with_cells(name)
    spec = backbone.input_spec
    clip = torch.zeros(1, 3, spec.frames, spec.height, spec.width)
    clip[:, :, 0, :4, :4] = 1.0
    others = [Unit(unit.layer, unit.site, 0) for unit, _ in units]
    for found in head_maps(backbone, clip, others).values():
        torch.testing.assert_close(found.values, found.values[:, :1, :1, :1].expand_as(found.values))


@pytest.mark.parametrize("name", CASES)
def test_pruned_models_keep_original_indices(name: str):
    backbone, units = sites_with_cells(name)
    last, cell = units[-1]
    first_removable = next(i.index for i in backbone.layers if i.removable)
    gone = [Unit(last.layer, last.site, 0)]
    smaller = backbone.without([first_removable]).without_heads(gone)
    clips, _ = marked_clips(backbone, patch_steps(name, cell))
    found = head_maps(smaller, clips, [last])[last]
    torch.testing.assert_close(found.values, head_maps(backbone, clips, [last])[last].values, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=f"no layer {last.layer} {last.site} head 0; the heads there are 1"):
        head_maps(smaller, clips, gone)
    with pytest.raises(ValueError, match=f"no layer {first_removable}; its layers are"):
        head_maps(smaller, clips, [Unit(first_removable, last.site, HEAD)])
