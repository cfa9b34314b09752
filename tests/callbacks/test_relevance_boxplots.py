"""After an ablation the tables of chosen heads are there; after a race they are not."""

import pandas as pd
import pytest

from callbacks import HeadAblation, RelevanceBoxplots
from callbacks.analysis import Context
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from sightline.ranks import Ranks
from sightline.relevance.table import read_manifest, read_scores, write_json
from tests.conftest import CABIN, TINY_SWIN


@pytest.fixture
def context(cabin_root, tmp_path):
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    module = VideoClassifier(2, backbone="video_swin_demo", frames=4, size=32, options=options)
    return Context(tmp_path / "run", "test", module, module.backbone.eval(), "none", data, Ranks(), [])


def test_heads_are_chosen_by_the_options_and_not_from_a_race(context):
    HeadAblation().analyse(context)
    RelevanceBoxplots(early_layers=1, deep_layers=2, specialised_layers=1).analyse(context)
    tables = context.folder / "tables"
    specialised = pd.read_csv(tables / "specialised_heads_test.csv")
    assert specialised["class"].tolist() == CABIN["actions"]
    assert (specialised["layer"] == 3).all()
    extreme = pd.read_csv(tables / "extreme_heads_test.csv").set_index(["depth", "extreme"])
    means = read_scores(context.relevance_folder, "heads").groupby(["layer", "head"])["r"].mean()
    assert tuple(extreme.loc[("early", "most"), ["layer", "head"]]) == means.loc[[0]].idxmax()
    assert tuple(extreme.loc[("intermediate", "least"), ["layer", "head"]]) == means.loc[[1]].idxmin()
    assert tuple(extreme.loc[("deep", "most"), ["layer", "head"]]) == means.loc[[2, 3]].idxmax()

    # By default two of this family's four layers are early and two are deep.
    RelevanceBoxplots().analyse(context)
    assert set(pd.read_csv(tables / "extreme_heads_test.csv")["depth"]) == {"all", "early", "deep"}

    manifest = read_manifest(context.relevance_folder)
    entry = manifest["tables"]["heads"]
    units = [[unit.layer, unit.site, unit.head] for unit in context.backbone.units("heads")]
    entry["race"] = {"score": "r", "sets": [], "units": units, "settled_at": [None] * len(units)}
    write_json(context.relevance_folder / "manifest.json", manifest)
    RelevanceBoxplots().analyse(context)
    assert not list(tables.glob("*_heads_test*.csv"))
    assert (tables / "relevance_test_heads.csv").is_file()
