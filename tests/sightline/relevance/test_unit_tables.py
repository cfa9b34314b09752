import numpy as np
import pandas as pd
import pytest

from sightline.relevance.matrix import score_matrix
from sightline.relevance.unit_tables import class_table, group_table, interval_note, interval_table, stability_table
from sightline.statistics.bootstrap import ResampledMeans, resampled_means
from tests.sightline.relevance.tables import score_table

VALUES = np.array([[0.1, 0.2, 0.6, 0.3], [0.0, 0.5, 0.1, 0.2]])


def test_means_by_class_and_group_by_hand():
    matrix = score_matrix(score_table(VALUES, ["b", "a", "b", "b"], [2, 0, 0, 2]))
    classes = class_table(matrix, ["drowsy", "texting", "steering"])
    assert classes[["layer", "label", "class", "n"]].to_numpy().tolist() == [
        [0, 0, "drowsy", 2], [0, 2, "steering", 2], [1, 0, "drowsy", 2], [1, 2, "steering", 2],
    ]  # fmt: skip
    assert classes["mean"].tolist() == pytest.approx([0.4, 0.2, 0.3, 0.1])
    groups = group_table(matrix)
    assert groups["group"].tolist() == ["a", "b", "a", "b"]
    assert groups["n"].tolist() == [1, 3, 1, 3]
    assert groups["mean"].tolist() == pytest.approx([0.2, 1 / 3, 0.5, 0.1])


def test_a_group_that_a_raced_unit_never_saw_has_no_row():
    values = VALUES.copy()
    values[1, 1] = np.nan
    groups = group_table(score_matrix(score_table(values, ["b", "a", "b", "b"])))
    assert groups[["layer", "group"]].to_numpy().tolist() == [[0, "a"], [0, "b"], [1, "b"]]
    assert groups["mean"].iloc[2] == pytest.approx(0.1)


def test_intervals_need_eight_groups():
    generator = np.random.default_rng(0)
    values = generator.random((3, 40))
    many = score_matrix(score_table(values, [f"s{i % 8}" for i in range(40)]))
    found = interval_table(many)
    assert (found["mean_low"] < found["mean"]).all()
    assert (found["mean"] < found["mean_high"]).all()
    assert found["groups"].tolist() == [8, 8, 8]
    few = score_matrix(score_table(values, [f"s{i % 7}" for i in range(40)]))
    found = interval_table(few)
    assert found[["mean_low", "mean_high"]].isna().all(axis=None)
    assert "fewer than 8" in interval_note(7)
    assert "too optimistic" in interval_note(7)
    assert interval_note(8) == "Intervals and stability are over 8 groups."
    raced = interval_note(8, {"score": "r", "method": "guaranteed", "confidence": 0.99, "tolerance": 0.0})
    assert "guaranteed with a probability of at least 0.99" in raced
    assert "No stability of a race" in raced


def test_stability_by_hand():
    # Means .3, .2, .5; of four resamples two keep the order, one swaps the first two, one puts unit 2 first.
    matrix = score_matrix(score_table(np.array([[0.3], [0.2], [0.5]])))
    drawn = ResampledMeans(np.array([[0.3, 0.2, 0.5], [0.4, 0.1, 0.6], [0.2, 0.3, 0.5], [0.3, 0.2, 0.1]]), "groups")
    table = stability_table(matrix, drawn, [1, 2], ["lowest"])
    first = table[table["k"] == 1]
    assert first["layer"].tolist() == [0, 1, 2]
    assert first["chosen"].tolist() == [False, True, False]
    assert first["share"].tolist() == [0.25, 0.5, 0.25]
    assert first["same_set"].tolist() == [0.5] * 3
    second = table[table["k"] == 2].set_index("layer")
    assert second["share"].to_dict() == {0: 0.75, 1: 1.0, 2: 0.25}
    assert second["same_set"].tolist() == [0.75] * 3
    highest = stability_table(matrix, drawn, [1], ["highest"])
    assert highest.set_index("layer")["share"].to_dict() == {2: 0.75, 0: 0.25}  # unit 1 never was in the set: no row
    # Among units 0 and 2 alone, 0 is the lower in three of four.
    allowed = stability_table(matrix, drawn, [1], ["lowest"], allowed=np.array([True, False, True]))
    assert allowed.set_index("layer")["share"].to_dict() == {0: 0.75, 2: 0.25}


def test_a_set_with_a_wide_gap_is_stable_and_one_without_is_not():
    generator = np.random.default_rng(3)
    levels = np.array([0.1, 0.1, 0.5, 0.9])[:, None]
    matrix = score_matrix(
        score_table(levels + 0.05 * generator.standard_normal((4, 200)), [f"s{i % 10}" for i in range(200)])
    )
    same = stability_table(matrix, resampled_means(matrix), [1, 2], ["lowest"]).groupby("k")["same_set"].first()
    assert same[2] == 1.0
    assert 0.3 < same[1] < 0.99


def test_stability_of_a_race_is_refused():
    values = VALUES.copy()
    values[0, 3] = np.nan
    matrix = score_matrix(score_table(values))
    with pytest.raises(ValueError, match="every unit on every sample"):
        stability_table(matrix, resampled_means(matrix), [1])
    assert isinstance(group_table(matrix), pd.DataFrame)
