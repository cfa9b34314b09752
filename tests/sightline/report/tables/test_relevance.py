"""The tables on disk: that they hold what the statistics say, for layers, heads and races."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race
from sightline.report.tables.relevance import relevance_tables, write_relevance_tables
from sightline.types import Unit
from tests.sightline.relevance.tables import score_table

GROUPS = [f"s{i % 10}" for i in range(120)]
LABELS = [i % 3 for i in range(120)]
NAMES = ["drowsy", "texting", "steering"]


@pytest.fixture
def values() -> np.ndarray:
    levels = np.array([0.2, 0.1, 0.6, 0.4])[:, None]
    return levels + 0.05 * np.random.default_rng(0).random((4, 120))


def test_layers(values, tmp_path):
    table = score_table(values, GROUPS, LABELS)
    tables = relevance_tables(table, ["r", "dprob"], NAMES, removable=[0, 1, 3], noise_floor=0.03)
    paths = write_relevance_tables(tables, tmp_path / "tables", "train", "layers")
    names = ["relevance_train_layers", "relevance_train_layers_by_class", "relevance_train_layers_by_group"]
    assert [path.stem for path in paths] == [*names, "stability_train_layers", "cut_gaps_train_layers"]
    statistics, classes, groups, stability, gaps = (pd.read_csv(path) for path in paths)
    r = statistics[statistics["score"] == "r"]
    assert r["layer"].tolist() == [0, 1, 2, 3]
    assert r["mean"].tolist() == pytest.approx(values.mean(axis=1), rel=1e-5)
    assert (r["mean_low"] < r["mean"]).all()
    assert (r["mean_high"] > r["mean"]).all()
    dprob = statistics[statistics["score"] == "dprob"]
    assert dprob["median"].tolist() == pytest.approx(1.5 * np.median(values, axis=1), rel=1e-5)
    row = classes.query("score == 'r' and layer == 2 and `class` == 'steering'").iloc[0]
    assert (row["n"], row["mean"]) == (40, pytest.approx(values[2, 2::3].mean(), rel=1e-5))
    row = groups.query("score == 'r' and layer == 3 and group == 's7'").iloc[0]
    assert (row["n"], row["mean"]) == (12, pytest.approx(values[3, 7::10].mean(), rel=1e-5))
    # Layer 2 has the highest mean, but cannot be removed.
    highest = stability.query("score == 'r' and mode == 'highest' and k == 1")
    assert highest[["layer", "chosen", "share"]].to_numpy().tolist() == [[3, True, 1.0]]
    assert set(stability["k"]) == {1, 2}
    means = values.mean(axis=1)
    r = gaps[gaps["score"] == "r"].set_index(["mode", "k"])
    assert r[["last_cut", "first_kept"]].to_numpy().tolist() == [
        ["layer 1", "layer 0"], ["layer 0", "layer 3"], ["layer 3", "layer 0"], ["layer 0", "layer 1"],
    ]  # fmt: skip
    assert r["gap"].tolist() == pytest.approx(
        [means[a] - means[b] for a, b in ((0, 1), (3, 0), (3, 0), (0, 1))], rel=1e-4
    )
    assert not r["clear"].any()  # ten floors are 0.3


def test_heads_of_two_sites_keep_their_own_rows(values):
    table = score_table(values, GROUPS, LABELS)
    units = {0: (0, "temporal", 0), 1: (0, "temporal", 1), 2: (0, "spatial", 0), 3: (1, "temporal", 0)}
    for place, name in enumerate(("layer", "site", "head")):
        table[f"_{name}"] = [units[layer][place] for layer in table["layer"]]
    table = table.drop(columns=["layer", "site", "head"]).rename(columns=lambda name: name.removeprefix("_"))
    tables = relevance_tables(table, ["r"], NAMES)
    found = {
        row.layer * 100 + (row.site == "spatial") * 10 + row.head: row for row in tables["statistics"].itertuples()
    }
    for place, key in ((0, 0), (1, 1), (2, 10), (3, 100)):
        assert found[key].mean == pytest.approx(values[place].mean())
        assert found[key].mean_low < found[key].mean < found[key].mean_high
    assert len(tables["by_class"]) == 12


def test_a_race_has_no_stability_but_says_when_units_stopped(values, tmp_path):
    values = np.repeat(values, 3, axis=1)
    race = Race(4, 360, RaceSettings(ks=(1,), modes=("lowest",)))
    race.replay(values)
    assert (race.n < 360).all()
    seen = np.full_like(values, np.nan)
    for unit, n in enumerate(race.n):
        seen[unit, race.order[:n]] = values[unit, race.order[:n]]
    seen[0] = values[0]
    record = race.record([Unit(i) for i in range(4)])
    (tmp_path / "stability_train_layers.csv").touch()
    tables = relevance_tables(score_table(seen, GROUPS * 3, LABELS * 3), ["r"], NAMES, race=record)
    paths = write_relevance_tables(tables, tmp_path, "train", "layers")
    statistics = pd.read_csv(paths[0])
    assert statistics["n"].tolist() == [360, *race.n[1:]]
    assert statistics["settled_at"].tolist() == race.n.tolist()
    assert statistics["place"].tolist()[1] == 0
    assert "stability" not in tables
    assert "gaps" not in tables  # units saw different samples
    assert not (tmp_path / "stability_train_layers.csv").exists()  # an earlier, full run's


def test_a_single_unit_has_no_sets_to_be_stable(values):
    tables = relevance_tables(score_table(values[:1], GROUPS, LABELS), ["r"], NAMES)
    assert len(tables["statistics"]) == 1
    assert tables["stability"].empty
