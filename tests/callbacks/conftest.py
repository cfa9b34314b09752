"""What several tests of callbacks share."""

import pytest

from callbacks.analysis import Context
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN


@pytest.fixture
def context(cabin_root, tmp_path) -> Context:
    """A tiny untrained model on a tiny cabin, in a folder that is not there yet."""
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "test", module, module.backbone.eval(), "none", data, Ranks(), [])
