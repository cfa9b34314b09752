"""Attribution methods compared on a tiny untrained model: tables, what is left out, what is asked for wrongly."""

from __future__ import annotations

import pandas as pd
import pytest

from callbacks import AttributionComparison, HeadAblation
from callbacks.analysis import Context
from callbacks.attribution.comparison import SLOW, head_relevance
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.explain.attribution.registry import METHODS
from sightline.report.tables.attribution import read_attribution_table
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN, randomise


@pytest.fixture(scope="module")
def context(cabin_root, tmp_path_factory) -> Context:
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, data.class_names, backbone="video_swin_demo", frames=4, size=32, options=options)
    folder = tmp_path_factory.mktemp("attributed") / "run"
    return Context(folder, "test", module, randomise(module.backbone), "none", data, Ranks(), [])


def test_tables_and_figure_without_scored_heads(context, capsys):
    AttributionComparison(clips=2).analyse(context)
    told = capsys.readouterr().out
    assert "Left out: relevant_heads. relevant_heads needs the relevance of the heads." in told
    assert "Left out: rollout. Attention rollout multiplies" in told
    table = read_attribution_table(context.run.table("attribution_test"))
    expected = set(METHODS) - set(SLOW) - {"relevant_heads", "rollout"}
    assert set(table["method"]) == expected
    assert set(table.loc[table["control"], "method"]) == {"random", "centre", "motion", "brightness", "untrained"}
    assert {"deletion_blur", "faithfulness", "pointing_head", "on_target_head", "seconds"} <= set(table["metric"])
    assert {"mean_iou_head", "mean_accuracy_hand", "pixel_accuracy_object"} <= set(table["metric"])  # the cabin's masks
    assert (table.loc[table["metric"] == "deletion_blur", "clips"] == 2).all()
    assert (context.run.figures / "attribution_test.png").is_file()
    assert context.run.table("attribution_pairs_test").is_file()
    rows = pd.read_parquet(context.run.attribution("test"))
    assert rows["sample_id"].nunique() == 2


def test_scored_heads_weigh_their_maps(context):
    assert head_relevance(context) is None
    HeadAblation().analyse(Context(**{**vars(context), "split": "train"}))
    weights = head_relevance(context)
    assert weights is not None
    assert set(weights) == set(context.backbone.units("heads"))
    assert all(weight >= 0 for weight in weights.values())
    comparison = AttributionComparison(methods=["relevant_heads:top=2", "centre"], metrics=["localisation"], clips=1)
    comparison.analyse(context)
    table = read_attribution_table(context.run.table("attribution_test"))
    assert set(table["method"]) == {"relevant_heads top=2", "centre"}


def test_a_method_that_was_asked_for_and_cannot_work_is_an_error(context):
    with pytest.raises(ValueError, match="Attention rollout multiplies"):
        AttributionComparison(methods=["rollout"], clips=1).analyse(context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "at least one clip to explain, got 0"),
        ({"metrics": ["speed"]}, "among removal, agreement, .*; got speed"),
        ({"methods": ["magic"]}, "Unknown attribution method 'magic'"),
        ({"methods": []}, "Name at least one attribution method"),
    ],
)
def test_what_cannot_be_asked_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        AttributionComparison(**options)
    with pytest.raises(ValueError, match=message):
        AttributionComparison().override(*(options.get(name) for name in ("methods", "metrics", "clips")))
