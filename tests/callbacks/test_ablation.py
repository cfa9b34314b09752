"""Ablation over a split with an unreadable clip: it is absent and named, and nothing takes its place."""

import json
import shutil

import pandas as pd
import pytest

from callbacks import HeadAblation, LayerAblation
from callbacks.analysis import Context
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.run.ranks import Ranks
from tests.conftest import CABIN, TINY_SWIN


@pytest.fixture
def context(cabin_root, tmp_path):
    shutil.copytree(cabin_root, tmp_path / "cabin")
    data = SyntheticCabin(root=str(tmp_path / "cabin"), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "train", module, module.backbone.eval(), "none", data, Ranks(), [])


@pytest.mark.parametrize("ablation", [HeadAblation, LayerAblation])
def test_an_unreadable_clip_is_absent_and_named(context, ablation):
    clips = context.data.clips("train")
    bad = clips[1]
    with open(bad.path, "wb"):
        pass
    context.data.record_bad_clips(context.folder / "tables" / "unreadable-ablate.csv")
    ablation().analyse(context)
    scores = pd.read_parquet(context.relevance_folder / f"{ablation.kind}.parquet")
    units = len(context.backbone.units(ablation.kind))
    expected = [clip.sample_id for clip in clips if clip is not bad]
    assert scores["sample_id"].tolist() == [name for name in expected for _ in range(units)]
    manifest = json.loads((context.relevance_folder / "manifest.json").read_text())
    [left_out] = manifest["tables"][ablation.kind]["left_out"]
    assert left_out["sample_id"] == bad.sample_id
    assert "cannot be opened" in left_out["reason"]
    [row] = pd.read_csv(context.folder / "tables" / "unreadable-ablate.csv").itertuples()
    assert (row.split, row.sample_id) == ("train", bad.sample_id)
