"""Choosing heads: hand-computed answers, and a slow obvious implementation beside the fast one."""

import numpy as np
import pandas as pd
import pytest

from sightline.backbones import build_backbone
from sightline.relevance.heads import (
    default_ends,
    extreme_heads,
    head_generality,
    layer_depths,
    shared_heads,
    specialised_heads,
)
from tests.sightline.relevance.tables import score_table

NAMES = ("drive", "text", "eat")


def table_of(units, values, label, group=None):
    """A head table: units are (layer, site, head), values (U, N)."""
    n = len(label)
    group = [f"s{i}" for i in range(n)] if group is None else group
    rows = [
        (f"clip{i}", label[i], group[i], *units[u], values[u][i], values[u][i] / 2, values[u][i] / 3)
        for i in range(n)
        for u in range(len(units))
    ]
    return pd.DataFrame(rows, columns=["sample_id", "label", "group", "layer", "site", "head", "r", "jsd", "dprob"])


def random_table(seed, layers=5, heads=2, samples=12, levels=None):
    """Two sites per layer; with few ``levels`` there are many ties."""
    rng = np.random.default_rng(seed)
    units = [(layer, site, h) for layer in range(layers) for site in ("temporal", "spatial") for h in range(heads)]
    values = rng.random((len(units), samples))
    values = values if levels is None else np.floor(values * levels) / levels
    return table_of(units, values, rng.integers(0, 3, samples).tolist())


# ------------------------------------------------------------------ depths


def test_depths_count_the_layers_that_there_are():
    assert layer_depths([0, 1, 2, 3, 4]) == {
        0: "early", 1: "early", 2: "intermediate", 3: "deep", 4: "deep",
    }  # fmt: skip
    # Layers 1 and 4 of seven were pruned: of those left, the first two and the last one.
    assert layer_depths([6, 0, 2, 3, 5], early=2, deep=1) == {
        0: "early", 2: "early", 3: "intermediate", 5: "intermediate", 6: "deep",
    }  # fmt: skip
    assert set(layer_depths([0, 1, 2], 0, 0).values()) == {"intermediate"}
    assert layer_depths([4, 9], 1, 1) == {4: "early", 9: "deep"}


@pytest.mark.parametrize(("early", "deep"), [(2, 2), (-1, 1), (0, 4)])
def test_overlapping_depths_are_refused(early, deep):
    with pytest.raises(ValueError, match=rf"got {early} early and {deep} deep of 3 layers"):
        layer_depths([0, 1, 2], early, deep)


@pytest.mark.parametrize(
    ("name", "layers", "ends"),
    [("timesformer_demo", 12, 1), ("video_swin_demo", 24, 2), ("mvit_demo", 16, 2), ("vit_demo", 12, 2),
     ("vit_demo", 3, 1), ("vit_demo", 1, 0)],
)  # fmt: skip
def test_default_ends(name, layers, ends):
    assert default_ends(build_backbone(name, 2).end_layers, layers) == ends


# ------------------------------------------------------------------ most and least relevant


def test_extreme_heads_of_a_small_table_by_hand():
    units = [(0, "attention", 0), (0, "attention", 1), (1, "attention", 0), (1, "attention", 1)]
    #          clip0, clip1: drive; clip2: text
    values = [[0.2, 0.4, 0.1], [0.3, 0.3, 0.5], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0]]
    table = table_of(units, values, [0, 0, 1])

    whole = extreme_heads(table, early=1, deep=1).set_index(["depth", "extreme"])
    # Means .7/3, 1.1/3, 1/3, 1/3: in layer 1 both are equal, so head 0 is the most and the least relevant one.
    assert whole.loc[("all", "most"), ["layer", "head"]].tolist() == [0, 1]
    assert whole.loc[("all", "least"), ["layer", "head"]].tolist() == [0, 0]
    assert whole.loc[("early", "most"), ["layer", "head"]].tolist() == [0, 1]
    assert whole.loc[("deep", "most"), ["layer", "head"]].tolist() == [1, 0]
    assert whole.loc[("deep", "least"), ["layer", "head"]].tolist() == [1, 0]
    assert whole.loc[("all", "most"), "mean"] == pytest.approx(1.1 / 3)
    assert "intermediate" not in whole.index.get_level_values("depth")

    by_class = extreme_heads(table, "class", NAMES, 1, 1)
    assert by_class["class"].tolist() == ["drive"] * 6 + ["text"] * 6
    assert by_class["n"].tolist() == [2] * 6 + [1] * 6
    of_text = by_class[by_class["class"] == "text"].set_index(["depth", "extreme"])
    assert of_text.loc[("all", "most"), ["layer", "head", "mean"]].tolist() == [0, 1, 0.5]
    assert of_text.loc[("all", "least"), ["layer", "head", "mean"]].tolist() == [1, 0, 0.0]

    by_sample = extreme_heads(table, "sample", NAMES, 1, 1)
    of_first = by_sample[by_sample["sample_id"] == "clip0"].set_index(["depth", "extreme"])
    assert of_first.loc[("all", "most"), ["layer", "head", "mean"]].tolist() == [1, 0, 0.9]
    assert of_first.loc[("deep", "least"), ["layer", "head", "mean"]].tolist() == [1, 1, 0.5]


def test_another_score_is_taken_where_asked_for():
    units = [(0, "attention", 0), (1, "attention", 0)]
    table = table_of(units, [[0.2], [0.4]], [0])
    table["jsd"] = [0.8, 0.1]
    assert extreme_heads(table, early=0, deep=0).query("extreme == 'most'")["layer"].unique() == [1]
    assert extreme_heads(table, early=0, deep=0, score="jsd").query("extreme == 'most'")["layer"].unique() == [0]


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("by", ["data set", "class", "sample"])
def test_extreme_heads_are_those_of_a_search_one_by_one(levels, by):
    table = random_table(3, levels=levels)
    depth = {0: "early", 1: "intermediate", 2: "intermediate", 3: "deep", 4: "deep"}
    part_of = {"data set": lambda row: 0, "class": lambda row: row.label, "sample": lambda row: row.sample_id}[by]
    scores = {}
    for row in table.itertuples():
        for name in ("all", depth[row.layer]):
            heads = scores.setdefault((part_of(row), row.site, name), {})
            heads.setdefault((row.layer, row.head), []).append(row.r)
    found = extreme_heads(table, by, NAMES, early=1, deep=2)
    assert len(found) == 2 * len(scores)
    for row in found.itertuples():
        heads = scores[part_of(row), row.site, row.depth]
        # The same values added up in another order round differently: ties are told apart after rounding.
        means = {head: round(sum(values) / len(values), 12) for head, values in sorted(heads.items())}
        best = (max if row.extreme == "most" else min)(means, key=means.get)
        assert round(row.mean, 12) == means[best]
        if levels is None or by == "sample":
            assert (row.layer, row.head) == best


# ------------------------------------------------------------------ specialised


def planted(groups, samples_per_group=4, noise=0.02):
    """Three layers of two heads; 'drive' uses head (2, 1), 'text' head (1, 0), 'eat' both (2, 0) and (2, 1) alike."""
    rng = np.random.default_rng(0)
    units = [(layer, "attention", head) for layer in range(3) for head in range(2)]
    n = 3 * groups * samples_per_group
    label = np.tile([0, 1, 2], n // 3)
    values = 0.2 + noise * rng.standard_normal((6, n))
    values[0] += 0.6  # a shallow head that matters most of all, but is not among the last two layers
    values[5, label == 0] += 0.3
    values[2, label == 1] += 0.1
    values[4, label == 2] += 0.3
    values[5, label == 2] += 0.3
    group = [f"s{i // (3 * samples_per_group)}" for i in range(n)]
    return table_of(units, values, label.tolist(), group)


def test_specialised_heads_of_planted_classes():
    table = planted(groups=10)
    found = specialised_heads(table, NAMES).set_index("class")
    assert found.loc["drive", ["layer", "head"]].tolist() == [2, 1]
    assert found.loc["text", ["layer", "head"]].tolist() == [1, 0]
    assert found.loc[["drive", "text"], "picked"].tolist() == [1.0, 1.0]
    assert (found["n"] == 40).all()
    assert (found["groups"] == 10).all()
    assert (found["resampled"] == "groups").all()
    assert found.loc["drive", "margin_low"] < found.loc["drive", "margin"] < found.loc["drive", "margin_high"]
    # 40 clips of deviation .02 place a difference to within .02 * sqrt(2 / 40) = .0045; ends are 3 of these away.
    assert found.loc["drive", "margin_low"] > 0.28
    assert found.loc["drive", "margin_high"] < 0.32
    # Two heads alike: the margin's interval holds 0, and resamples disagree.
    assert found.loc["eat", "layer"] == found.loc["eat", "second_layer"] == 2
    assert found.loc["eat", "margin_low"] < 0
    assert 0.02 < found.loc["eat", "picked"] < 0.98


def test_specialised_heads_state_means_as_computed_by_hand():
    units = [(0, "attention", 0), (1, "attention", 0), (1, "attention", 1)]
    table = table_of(units, [[0.9, 0.9, 0.0], [0.1, 0.3, 0.5], [0.3, 0.5, 0.5]], [0, 0, 1])
    [drive, text] = specialised_heads(table, NAMES, last=1).itertuples()
    assert (drive.layer, drive.head, drive.second_layer, drive.second_head) == (1, 1, 1, 0)
    assert (drive.mean, drive.second_mean) == pytest.approx((0.4, 0.2))
    assert drive.margin == pytest.approx(0.2)
    assert drive.picked == 1  # on both samples it is ahead
    assert (text.layer, text.head, text.margin) == (1, 0, 0.0)  # a tie, to the lower index, in every resample too
    assert text.picked == 1
    assert np.isnan(drive.margin_low)  # two groups
    assert drive.resampled == "samples"
    assert specialised_heads(table, NAMES, last=2)["layer"].tolist() == [0, 1]


def test_sites_have_specialised_heads_of_their_own_and_a_lone_head_has_no_second():
    units = [(0, "temporal", 0), (0, "temporal", 1), (0, "spatial", 0)]
    table = table_of(units, [[0.1, 0.1], [0.2, 0.2], [0.9, 0.9]], [0, 0])
    spatial, temporal = specialised_heads(table, NAMES).itertuples()
    assert (spatial.site, spatial.head, temporal.site, temporal.head) == ("spatial", 0, "temporal", 1)
    assert pd.isna(spatial.second_layer)
    assert np.isnan(spatial.margin)
    assert temporal.second_head == 0


def test_the_share_of_resamples_is_that_of_drawing_groups_one_by_one():
    table = planted(groups=8, samples_per_group=1, noise=0.1)
    found = specialised_heads(table, NAMES, resamples=4000).set_index("class")
    rng = np.random.default_rng(7)
    for label, name in enumerate(NAMES):
        part = table[(table["label"] == label) & (table["layer"] >= 1)]
        wide = part.pivot(index="group", columns=["layer", "head"], values="r")
        own = wide.columns.get_loc((found.loc[name, "layer"], found.loc[name, "head"]))
        wins = sum(wide.to_numpy()[rng.choice(8, 8)].mean(axis=0).argmax() == own for _ in range(1000))
        # Standard error of a share of 1,000: at most .016.
        assert found.loc[name, "picked"] == pytest.approx(wins / 1000, abs=0.06)


def test_classes_are_grouped_by_the_head_that_they_share():
    units = [(0, "attention", 0), (0, "attention", 1)]
    table = table_of(units, [[0.1, 0.5, 0.1], [0.2, 0.1, 0.2]], [0, 1, 2])
    shared = shared_heads(specialised_heads(table, NAMES))
    assert shared[["layer", "head", "classes", "names"]].values.tolist() == [[0, 1, 2, "drive; eat"], [0, 0, 1, "text"]]


# ------------------------------------------------------------------ general


def test_general_heads_by_hand():
    units = [(0, "attention", head) for head in range(3)]
    table = table_of(units, [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [0.3, 0.3, 0.8]], [0, 0, 1])
    found = head_generality(table).set_index("head")
    # Medians: class 0 of .15, .55, .3 is .3; class 1 of .3, .7, .8 is .7. Of samples: .3, .3, .7.
    assert found["classes_above"].to_dict() == {0: 0, 1: 1, 2: 1}
    assert found["samples_above"].to_dict() == {0: 0, 1: 2, 2: 1}
    assert not found["general"].any()
    assert found.index.tolist() == [1, 2, 0]
    raised = table.assign(r=table["r"].where(table["head"] != 2, 0.9))
    assert head_generality(raised).set_index("head")["general"].to_dict() == {2: True, 0: False, 1: False}


def test_no_more_than_half_of_a_sites_heads_are_general():
    for seed in range(5):
        found = head_generality(random_table(seed))
        for _, of_site in found.groupby("site"):
            assert of_site["general"].sum() <= len(of_site) / 2


# ------------------------------------------------------------------ what is refused


def test_tables_of_layers_and_of_races_are_refused():
    with pytest.raises(ValueError, match=r"got one of layers.*heads\.parquet"):
        extreme_heads(score_table(np.ones((3, 2))))
    table = random_table(0)
    with pytest.raises(ValueError, match="table comes from a race"):
        specialised_heads(table.iloc[1:], NAMES)
    with pytest.raises(ValueError, match="score must be one of"):
        head_generality(table, "nonsense")
    with pytest.raises(ValueError, match="at least 1 last layer, got 0"):
        specialised_heads(table, NAMES, last=0)
    with pytest.raises(ValueError, match="'data set', 'class' or 'sample', got 'clip'"):
        extreme_heads(table, "clip")
