import pytest
import torch
from torchvision.models.video.swin_transformer import SwinTransformer3d, swin3d_s

from sightline.backbones import build_backbone
from sightline.backbones.families.video_swin import VideoSwin, VideoSwinConfig
from sightline.backbones.parts.windows import relative_position_index, shift_mask, window_geometry
from sightline.types import ModelRecord
from tests.conftest import randomise

IDENTITY = ModelRecord(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CASES = {
    "whole windows": VideoSwinConfig(
        frames=8, size=64, width=16, depths=(2, 2, 2), heads=(2, 4, 8), window=(4, 4, 4), num_classes=6
    ),
    "padded windows": VideoSwinConfig(
        frames=8, size=64, width=16, depths=(2, 2), heads=(2, 4), window=(8, 7, 7), num_classes=6
    ),
    "odd sizes": VideoSwinConfig(
        frames=9, size=50, width=16, depths=(2, 2), heads=(1, 2), window=(2, 4, 4), num_classes=6
    ),
    "shifted in time too": VideoSwinConfig(
        frames=16, size=32, width=16, depths=(2, 2), heads=(2, 4), window=(4, 4, 4), num_classes=6
    ),
}


def reference(config: VideoSwinConfig) -> SwinTransformer3d:
    model = SwinTransformer3d(
        list(config.patch), config.width, list(config.depths), list(config.heads), list(config.window),
        num_classes=config.num_classes,
    )  # fmt: skip
    if not config.shifted_windows:
        for module in model.modules():
            if hasattr(module, "shift_size"):
                module.shift_size = [0, 0, 0]
    return model.eval()


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_every_layer_equals_torchvision(config: VideoSwinConfig, shifted: bool):
    config = VideoSwinConfig(**{**config.__dict__, "shifted_windows": shifted})
    ours = randomise(VideoSwin(config, IDENTITY))
    theirs = reference(config)
    theirs.load_state_dict(ours.state_dict())
    clips = torch.rand(2, 3, config.frames, config.size, config.size)
    with torch.no_grad():
        state, x = ours.embed(clips), theirs.patch_embed(clips)
        index = 0
        for module in theirs.features:
            if isinstance(module, torch.nn.Sequential):
                for block in module:
                    state, x = ours.run(state, index, index + 1), block(x)
                    # Rounding of sums in another order; tokens are of order 1 to 10.
                    torch.testing.assert_close(state.tokens, x.flatten(1, 3), rtol=1e-4, atol=2e-5)
                    index += 1
            else:
                x = module(x)
        torch.testing.assert_close(ours.classify(state), theirs(clips), rtol=1e-4, atol=1e-5)
        assert index == ours.depth


def test_keys_and_parameters_are_torchvisions():
    ours = build_backbone("video_swin_s", 400)
    theirs = swin3d_s()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == 49_816_678  # torchvision's published figure
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for name, buffer in theirs.named_buffers():
        assert torch.equal(ours.state_dict()[name], buffer)


def test_all_layers_of_swin_s_can_go_and_merging_stays():
    smaller = build_backbone("video_swin_s", 10, {"frames": 2, "size": 32}).without(range(24)).eval()
    names = {name.rsplit(".", 1)[0] for name in smaller.state_dict()}
    merging = {f"features.{i}.{part}" for i in (1, 3, 5) for part in ("reduction", "norm")}
    assert names == {"patch_embed.proj", "patch_embed.norm", "norm", "head"} | merging
    clip = torch.zeros(1, 3, 2, 32, 32, dtype=torch.uint8)
    assert smaller(clip).shape == (1, 10)


def test_partition_and_reverse_undo_each_other():
    for grid, window in [((4, 6, 8), (2, 3, 4)), ((5, 7, 9), (2, 4, 4)), ((2, 4, 4), (8, 7, 7))]:
        geometry = window_geometry(grid, window, True)
        x = torch.randn(2, grid[0] * grid[1] * grid[2], 3)
        cut = geometry.partition(x)
        assert cut.shape == (2, geometry.count * geometry.volume, 3)
        assert torch.equal(geometry.reverse(cut), x)


def test_windows_by_hand():
    # One frame of 4x4 cells in windows of 2x2: cell numbers as they stand on the grid.
    cells = torch.arange(16.0).reshape(1, 16, 1)
    plain = window_geometry((1, 4, 4), (1, 2, 2), False).partition(cells).reshape(4, 4).tolist()
    assert plain == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    shifted = window_geometry((1, 4, 4), (1, 2, 2), True)
    assert shifted.shift == (0, 1, 1)
    assert shifted.partition(cells).reshape(4, 4).tolist() == [
        [5, 6, 9, 10],
        [7, 4, 11, 8],
        [13, 14, 1, 2],
        [15, 12, 3, 0],
    ]
    mask = shift_mask(shifted, torch.device("cpu")) == 0
    assert mask[0].all()  # cells that were neighbours
    assert mask[1].tolist() == [[c == r for c in (0, 1, 0, 1)] for r in (0, 1, 0, 1)]  # a left and a right half
    assert mask[3].tolist() == [[c == r for c in range(4)] for r in range(4)]  # four corners


def test_relative_positions_by_hand():
    # A window of two cells in a row: the second sees the first at -1 (row 0), itself at 0 (row 1), ...
    assert relative_position_index((1, 1, 2)).tolist() == [[1, 0], [2, 1]]


def attention_geometry(swin, clips):
    return swin.layer_modules()[0].geometry(swin.embed(clips))


def test_bias_is_reused_without_gradients_only(tiny_swin, tiny_clips):
    attention = tiny_swin.layer_modules()[0].attn
    with torch.no_grad():
        tiny_swin(tiny_clips)
        first = attention.bias(attention_geometry(tiny_swin, tiny_clips))
        assert attention.bias(attention_geometry(tiny_swin, tiny_clips)) is first
    tiny_swin(tiny_clips).sum().backward()
    assert attention.relative_position_bias_table.grad.abs().sum() > 0
    with torch.no_grad():
        tiny_swin.train()
        assert attention.bias(attention_geometry(tiny_swin, tiny_clips)) is not first


def test_wrong_configurations_are_refused():
    with pytest.raises(ValueError, match="same number of stages"):
        VideoSwinConfig(depths=(2, 2), heads=(1,))
    with pytest.raises(ValueError, match="hold none"):
        VideoSwinConfig(frames=1)
