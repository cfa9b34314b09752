import numpy as np
import pandas as pd
import pytest

from sightline.relevance.matrix import score_matrix
from tests.sightline.relevance.tables import score_table

VALUES = np.array([[0.1, 0.2, 0.6], [0.0, 0.5, 0.1]])


def test_rows_in_any_order_make_the_same_array():
    table = score_table(VALUES, ["a", "b", "a"], [2, 0, 1])
    matrix = score_matrix(table)
    np.testing.assert_array_equal(matrix.values, VALUES)
    assert matrix.group.tolist() == ["a", "b", "a"]
    assert matrix.label.tolist() == [2, 0, 1]
    assert matrix.complete
    assert matrix.means == pytest.approx([0.3, 0.2])
    shuffled = score_matrix(table.sample(frac=1, random_state=3))
    # The samples come in another order, each with its own scores, class and group.
    order = [shuffled.label.tolist().index(label) for label in (2, 0, 1)]
    np.testing.assert_array_equal(shuffled.values[:, order], VALUES)
    assert shuffled.group[order].tolist() == ["a", "b", "a"]
    assert score_matrix(table, "jsd").values == pytest.approx(VALUES / 2)


def test_heads_are_sorted_by_layer_site_and_head():
    rows = [(1, "temporal", 0), (0, "temporal", 10), (0, "spatial", 2), (0, "temporal", 2)]
    table = pd.DataFrame(rows, columns=["layer", "site", "head"]).assign(
        sample_id="x", label=0, group="a", r=[0.1, 0.2, 0.3, 0.4]
    )
    matrix = score_matrix(table)
    assert list(matrix.units.itertuples(index=False, name=None)) == [rows[2], rows[3], rows[1], rows[0]]
    assert matrix.values[:, 0].tolist() == [0.3, 0.4, 0.2, 0.1]


def test_sums_and_counts_by_group_pass_over_what_was_not_evaluated():
    values = VALUES.copy()
    values[1, 2] = np.nan
    matrix = score_matrix(score_table(values, ["a", "b", "a"]))
    assert not matrix.complete
    assert matrix.means == pytest.approx([0.3, 0.25])
    sums, counts = matrix.sums_by(np.array([0, 1, 0]), 2)
    assert sums == pytest.approx(np.array([[0.7, 0.2], [0.0, 0.5]]))
    assert counts.tolist() == [[2, 1], [1, 1]]


def test_what_is_no_score_table_is_refused():
    table = score_table(VALUES)
    with pytest.raises(ValueError, match="one of r, jsd, dprob"):
        score_matrix(table, "accuracy")
    with pytest.raises(ValueError, match="no rows"):
        score_matrix(table.iloc[:0])
    with pytest.raises(ValueError, match="twice"):
        score_matrix(pd.concat([table, table.iloc[:1]]))
