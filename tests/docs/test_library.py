"""The page on the library works as it is written: its blocks are run in order, on a small export and small videos."""

import re
from pathlib import Path

import numpy as np
import pytest

import sightline
from sightline.export.writing import export_model
from sightline.pruning import PruningPlan
from sightline.types import ModelRecord
from tests.conftest import TINY_SWIN, randomise
from tests.sightline.video.video_files import decode_all, write_video

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the page's blocks define, run in a folder that has the files that they name."""
    folder = tmp_path_factory.mktemp("page")
    backbone = randomise(sightline.build_backbone("video_swin_demo", 3, TINY_SWIN))
    backbone.set_record(ModelRecord(class_names=("drowsy", "talking", "steering")))
    plan = PruningPlan("relevance", "r", "lowest", 2, (0, 2))
    export_model(
        backbone.without((0, 2)), folder / "runs" / "demo" / "pruned" / plan.plan_id, name="video_swin_demo",
        options=TINY_SWIN, plan=plan, provenance={},
        sampling={"frames": 4, "size": 32, "short_side": 36, "antialias": True},
    )  # fmt: skip
    write_video(folder / "a.mp4", 40)
    write_video(folder / "b.mp4", 30)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    namespace: dict[str, object] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), namespace)
    return namespace


def test_what_the_page_shows_is_right(page, capsys):
    model, predictions = page["model"], page["predictions"]
    assert isinstance(model, sightline.Model)
    assert [p.class_name for p in predictions] == [next(iter(predictions[0].probabilities))]
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1)
    assert page["found"].end == pytest.approx(1.6, abs=0.01)  # the last of the windows
    relevance = page["relevance"]
    assert len(relevance) == 2 + 2 + 4  # two layers with two and four heads
    assert relevance.between(0, 1).all()


def test_the_maps_that_the_page_draws(page):
    assert len(page["maps"]) == 2
    assert page["attention"].shape == (2, 4, 32, 32)
    drawn = decode_all(page["folder"] / "a_head.mp4")
    assert drawn.shape == page["shown"].shape == (4, 32, 32, 3)
    assert np.abs(drawn.astype(int) - page["shown"].astype(int)).mean() < 20  # compressed


def test_the_last_example_scores_layers(page):
    assert len(page["scores"]) == 2 * 6
    assert page["scores"]["head"].isna().all()
