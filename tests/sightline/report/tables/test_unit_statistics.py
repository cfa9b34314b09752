"""The numbers behind the box plots, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sightline.report.tables.unit_statistics import STATISTICS, unit_keys, unit_statistics, unit_values


def layer_table(scores_of: dict[int, list[float]]) -> pd.DataFrame:
    rows = [(layer, None, None, value) for layer, values in scores_of.items() for value in values]
    return pd.DataFrame(rows, columns=["layer", "site", "head", "r"])


def test_quartiles_and_whiskers_by_hand():
    # Sorted: 0 .1 .2 .3 1. Quartiles at ranks 1, 2, 3: .1 .2 .3; fences .1 - .3 = -.2 and .3 + .3 = .6; 1 is outside.
    (row,) = unit_statistics(layer_table({3: [0.2, 1.0, 0.0, 0.3, 0.1]})).to_dict("records")
    assert row["layer"] == 3
    assert row["site"] == ""
    assert pd.isna(row["head"])
    numbers = {key: row[key] for key in STATISTICS[3:]}
    assert numbers == pytest.approx(
        {"n": 5, "mean": 0.32, "median": 0.2, "q25": 0.1, "q75": 0.3, "min": 0, "max": 1}
        | {"whisker_low": 0, "whisker_high": 0.3, "n_outside": 1}
    )


def test_quartiles_are_interpolated():
    # Ranks 0.75, 1.5, 2.25 of 0 .4 .8 1.
    (row,) = unit_statistics(layer_table({0: [0.0, 0.4, 0.8, 1.0]})).to_dict("records")
    assert (row["q25"], row["median"], row["q75"]) == pytest.approx((0.3, 0.6, 0.85))
    assert (row["whisker_low"], row["whisker_high"]) == (0, 1)


def test_no_sample_between_quartile_and_fence_leaves_no_whisker():
    # 0 0 0 1: quartiles 0, 0, .25; fence .625; the highest sample inside is 0, below the box's end.
    (row,) = unit_statistics(layer_table({0: [0, 0, 0, 1]})).to_dict("records")
    assert row["whisker_high"] == row["q75"] == 0.25
    assert row["n_outside"] == 1


def test_units_are_ordered_by_layer_site_as_run_and_head():
    rows = [(layer, site, head, 0.1) for layer in (1, 0) for site in ("temporal", "spatial") for head in (10, 2)]
    table = pd.DataFrame(rows, columns=["layer", "site", "head", "jsd"])
    statistics = unit_statistics(table, "jsd")
    expected = [(layer, site, head) for layer in (0, 1) for site in ("temporal", "spatial") for head in (2, 10)]
    assert unit_keys(statistics) == expected == [key for key, _ in unit_values(table, "jsd")]
    assert list(statistics.columns) == list(STATISTICS)


@pytest.mark.parametrize(
    ("missing", "kind"),
    [(None, "object"), (np.nan, "object"), (np.nan, "float64"), (pd.NA, "Int64"), (pd.NA, "object")],
)
def test_every_kind_of_null_marks_a_layer_table(missing, kind):
    head = pd.Series([missing] * 2, dtype=kind)
    table = pd.DataFrame({"layer": [0, 1], "site": pd.Series([missing] * 2, dtype="object"), "head": head, "r": [0, 1]})
    assert unit_keys(unit_statistics(table)) == [(0, "", None), (1, "", None)]


def test_parquet_round_trip_is_read_the_same(tmp_path):
    table = layer_table({0: [0.1, 0.2], 1: [0.3, 0.4]})
    table.to_parquet(tmp_path / "layers.parquet")
    pd.testing.assert_frame_equal(unit_statistics(pd.read_parquet(tmp_path / "layers.parquet")), unit_statistics(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[:0], "no rows"),
        (lambda table: table.assign(r=[0.1, np.nan]), r"1 of 2 values of r are not, the first is nan.*layer 1"),
        (lambda table: table.assign(r=[np.inf, 0.1]), "1 of 2 values of r are not"),
        (lambda table: table.drop(columns=["head"]), "missing: head"),
        (lambda table: table.assign(site=["attention", None], head=[0, None]), "mixes them"),
        (lambda table: table.assign(site=["attention", "attention"]), "mixes them"),
    ],
)
def test_a_table_that_cannot_be_summarised_says_why(change, message):
    with pytest.raises(ValueError, match=message):
        unit_statistics(change(layer_table({0: [0.1], 1: [0.2]})))


def test_an_unknown_score_names_the_known_ones():
    with pytest.raises(ValueError, match="r, jsd, dprob; got score='mean'"):
        unit_statistics(layer_table({0: [0.1]}), "mean")
