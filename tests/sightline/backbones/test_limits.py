"""Sizes that cannot be meant are refused before memory is given; names of others get a hint."""

import pytest

from sightline.backbones.registry import VARIANTS, build_backbone
from sightline.checkpoints.structure import misfit_of
from tests.conftest import TINY_SWIN


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_demo", {"depth": 10**9}, "depth of vit_demo must be from 1 to 65536, got 1000000000"),
        ("vit_demo", {"depth": 5000}, "5000 layers; at most 1000"),
        ("vit_demo", {"width": 10**9}, "width of vit_demo"),
        ("vit_demo", {"frames": -8}, "frames"),
        ("vit_demo", {"mlp_ratio": 1e9}, "mlp_ratio of vit_demo must be from 0 to 64"),
        ("vit_demo", {"mlp_ratio": float("nan")}, "mlp_ratio"),
        ("vit_demo", {"frames": 4096, "size": 4096}, "more than 4 GiB"),
        ("video_swin_demo", {"depths": [2] * 17, "heads": [2] * 17}, "17 entries"),
        ("video_swin_demo", {"depths": [900, 900, 2]}, "1802 layers"),
        ("video_swin_demo", {"window": [64, 64, 64]}, "262144 cells"),
        ("video_swin_demo", {"window": [0, 4, 4]}, "window of video_swin_demo must be from 1"),
    ],
)
def test_absurd_sizes_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, 3, options)


def test_an_absurd_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes of vit_demo must be from 1 to 65536, got 0"):
        build_backbone("vit_demo", 0)
    with pytest.raises(ValueError, match="num_classes"):
        build_backbone("vit_demo", 10**9)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_backbone_can_be_outlined_without_memory(name):
    """The outline has the names and shapes of the model itself, here compared where that is small."""
    assert misfit_of(lambda: build_backbone(name, 3), {}).endswith("more)")
    if name.endswith("_demo"):
        real = build_backbone(name, 3)
        assert misfit_of(lambda: build_backbone(name, 3), real.state_dict()) == ""
        assert {tensor.device.type for tensor in build_backbone(name, 3).state_dict().values()} == {"cpu"}


def test_an_outline_can_lack_layers_and_heads():
    real = build_backbone("video_swin_demo", 5, TINY_SWIN)
    unit = real.units("heads")[-1]

    def smaller():
        return build_backbone("video_swin_demo", 5, TINY_SWIN, (1,), (unit,))

    assert misfit_of(smaller, smaller().state_dict()) == ""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("swin3d_s", "Did you mean video_swin_s?"),
        ("swin3d_b", "Did you mean video_swin_b?"),
        ("mvitv2_s", "Did you mean mvit_v2_s?"),
        ("swin-tiny", "Did you mean video_swin_t?"),
        ("timesfomer_base", "Did you mean timesformer_base?"),
        ("VideoSwin_S", "Did you mean video_swin_s"),
        ("MCG-NJU/videomae-base", "Did you mean vit_base_videomae? This looks like the name of a model on a hub"),
        ("facebook/timesformer-base-finetuned-k400", "Did you mean timesformer_base? This looks"),
    ],
)
def test_names_of_others_get_a_hint(name, meant):
    with pytest.raises(ValueError, match="Registered are video_swin_t") as caught:
        build_backbone(name, 3)
    assert meant in str(caught.value)


@pytest.mark.parametrize("name", ["resnet", "x3d_s", "slowfast", 5, None])
def test_names_that_are_near_to_none_get_the_list_alone(name):
    with pytest.raises(ValueError, match=r"Unknown backbone .*\. Registered are"):
        build_backbone(name, 3)
