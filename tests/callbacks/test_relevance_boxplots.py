"""After an ablation the tables of chosen heads are there; after a race they are not."""

import pandas as pd

from callbacks import HeadAblation, RelevanceBoxplots
from sightline.relevance.table import read_manifest, read_scores
from sightline.run.atomic import write_json
from tests.conftest import CABIN


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
