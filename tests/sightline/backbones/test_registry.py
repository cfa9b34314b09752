import pytest

from sightline.backbones import build_backbone
from sightline.types import Unit


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "Unknown backbone 'resnet'.*video_swin_s"),
        ("video_swin_demo", {"depht": [2]}, "no option 'depht'.*depths"),
        ("video_swin_demo", {"depths": "two"}, "list of integers"),
        ("video_swin_demo", {"frames": 8.5}, "type int"),
        ("video_swin_demo", {"shifted_windows": 1}, "type bool"),
    ],
)
def test_wrong_requests_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, 3, options)


def test_options_and_removals_are_applied():
    options = {"drop_path": 0, "depths": [2, 2, 2], "shifted_windows": False}
    backbone = build_backbone("video_swin_demo", 3, options, (1,), (Unit(0, "attention", 1),))
    assert [info.index for info in backbone.layers] == [0, 2, 3, 4, 5]
    assert backbone.layers[0].sites[0].heads == (0,)
    assert backbone.config.drop_path == 0.0
    assert not backbone.layer_modules()[3].shift
