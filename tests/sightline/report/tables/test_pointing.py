"""Tables of pointing scores: hand-computed means, planted relations, and a slow bootstrap beside the fast one."""

import math

import numpy as np
import pandas as pd
import pytest

from sightline.report.tables.pointing import (
    CORRELATION,
    RELEVANT,
    pointing_summary,
    pointing_table,
    summary_lines,
    write_pointing_tables,
)
from sightline.statistics.rank_correlation import spearman


def rows_of(units, pointing, groups, target="hand", uniform=0.1):
    """Rows as `point_split` writes them; pointing is (U, N)."""
    rows = [
        (f"clip{i:03d}", 0, groups[i], *unit, target, pointing[u][i], pointing[u][i] / 2, uniform, uniform)
        for u, unit in enumerate(units)
        for i in range(len(groups))
    ]
    columns = ["sample_id", "label", "group", "layer", "site", "head", "target"]
    return pd.DataFrame(rows, columns=[*columns, "pointing", "share", "uniform_pointing", "uniform_share"])


def relevance_of(units, r, groups, name="clip"):
    rows = [
        (f"{name}{i:03d}", 0, groups[i], *unit, r[u][i], r[u][i], r[u][i])
        for i in range(len(groups))
        for u, unit in enumerate(units)
    ]
    return pd.DataFrame(rows, columns=["sample_id", "label", "group", "layer", "site", "head", "r", "jsd", "dprob"])


def planted(subjects=10, per_subject=4, noise=0.1, seed=0):
    """Four layers of two heads. Layer 3's head 1 is the relevant deep one, and relevance grows with pointing."""
    rng = np.random.default_rng(seed)
    units = [(layer, "attention", head) for layer in range(4) for head in range(2)]
    groups = [f"s{i // per_subject:02d}" for i in range(subjects * per_subject)]
    of_subject = np.repeat(rng.standard_normal(subjects) * noise, per_subject)
    level = np.array([0.1, 0.2, 0.3, 0.15, 0.25, 0.35, 0.4, 0.9])
    pointing = level[:, None] + of_subject + noise * rng.standard_normal((8, len(groups)))
    r = level[:, None] / 10 + 0.01 * rng.standard_normal((8, len(groups)))
    return units, groups, pointing, r


# ------------------------------------------------------------------ the table of heads


def test_means_and_controls_by_hand():
    units = [(0, "attention", 0), (1, "attention", 0)]
    hand = rows_of(units, [[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]], ["a", "a", "b"])
    action = rows_of(units, [[1.0], [0.2]], ["a"], "action", uniform=0.75)
    head = rows_of(units, [[0.5, 0.5], [1.0, 0.0]], ["a", "b"], "head")
    table = pointing_table(pd.concat([hand, action, head])).set_index(["target", "layer"])
    assert list(table.index) == [("hand", 0), ("hand", 1), ("head", 0), ("head", 1)]
    first = table.loc[("hand", 0)]
    assert first[["n", "pointing", "share", "uniform_pointing"]].tolist() == pytest.approx([3, 0.5, 0.25, 0.1])
    assert math.isnan(first["pointing_low"])  # two subjects
    assert first[["random_pointing", "random_share"]].tolist() == pytest.approx([0.25, 0.125])
    assert first[["n_timed", "temporal", "uniform_temporal"]].tolist() == pytest.approx([1, 1.0, 0.75])
    assert first["random_temporal"] == pytest.approx(0.6)
    assert table.loc[("head", 1), ["n", "pointing", "temporal"]].tolist() == pytest.approx([2, 0.5, 0.2])


def test_sites_are_drawn_from_apart_and_intervals_need_eight_subjects():
    units = [(0, "temporal", 0), (0, "spatial", 0), (0, "spatial", 1)]
    pointing = np.array([[0.1], [0.4], [0.8]]) + np.linspace(-0.1, 0.1, 9)
    table = pointing_table(rows_of(units, pointing, [f"s{i}" for i in range(9)])).set_index(["site", "head"])
    assert table.loc[("temporal", 0), "random_pointing"] == pytest.approx(0.1)
    assert table.loc[("spatial", 0), "random_pointing"] == pytest.approx(0.6)
    assert (table["pointing_low"] < table["pointing"]).all()
    assert (table["pointing"] < table["pointing_high"]).all()


def test_boxes_or_times_alone_make_a_table_too():
    units = [(0, "attention", 0)]
    only_boxes = pointing_table(rows_of(units, [[0.5]], ["a"])).iloc[0]
    assert (only_boxes["n"], only_boxes["n_timed"]) == (1, 0)
    assert math.isnan(only_boxes["temporal"])
    only_times = pointing_table(rows_of(units, [[0.5]], ["a"], "action")).iloc[0]
    assert (only_times["target"], only_times["n"], only_times["n_timed"]) == ("", 0, 1)
    assert (only_times["layer"], only_times["head"]) == (0, 0)
    assert only_times["temporal"] == 0.5


# ------------------------------------------------------------------ the summary


def test_quantities_by_hand():
    units = [(layer, "attention", head) for layer in (0, 2, 5) for head in (0, 1)]  # layers 1, 3, 4 were pruned
    pointing = np.array([[0.1], [0.2], [0.3], [0.4], [0.5], [0.9]]).repeat(2, axis=1)
    r = np.array([[0.6], [0.1], [0.2], [0.3], [0.8], [0.7]]).repeat(2, axis=1)
    groups = ["a", "b"]
    found = pointing_summary(rows_of(units, pointing, groups), relevance_of(units, r, groups), early=1, deep=1)
    found = found[found["measure"] == "pointing"].set_index("quantity")
    # Deep: layer 5. The more relevant of its two heads is head 0.
    assert found["value"].drop([CORRELATION, "random heads"]).to_dict() == pytest.approx(
        {
            "relevant deep heads": 0.5,
            "all other heads": (0.1 + 0.2 + 0.3 + 0.4 + 0.9) / 5,
            "difference to all other heads": 0.5 - 0.38,
            "other deep heads": 0.9,
            "difference to other deep heads": -0.4,
            "uniform map": 0.1,
            "difference to uniform map": 0.4,
        }
    )
    assert found.loc["random heads", ["value", "low", "high"]].tolist() == pytest.approx([0.4, 0.1, 0.9])
    [line] = summary_lines(found.reset_index())
    assert line == (
        "Pointing at hand, attention: relevant deep heads 0.50; all other heads 0.38; difference to all other heads "
        "0.12; uniform map 0.10; Spearman's correlation with relevance 0.60."
    )
    # Ranks of r: 4 1 2 3 6 5, of pointing: 1 2 3 4 5 6; squared differences 9 1 1 1 1 1.
    assert found.loc[CORRELATION, "value"] == pytest.approx(1 - 6 * 14 / (6 * 35))
    assert found["low"].drop("random heads").isna().all()
    assert found["heads"].to_dict() == {
        "relevant deep heads": 1, "all other heads": 5, "difference to all other heads": 1, "other deep heads": 1,
        "difference to other deep heads": 1, "uniform map": 0, "difference to uniform map": 1, "random heads": 1,
        CORRELATION: 6,
    }  # fmt: skip


def test_intervals_are_those_of_leaving_subjects_out_one_by_one():
    units, groups, pointing, r = planted()
    noise = np.random.default_rng(2).random(r.shape)
    r = 0.1 * r + 0.9 * noise  # so that ranks depend on the subjects
    rows, relevance = rows_of(units, pointing, groups), relevance_of(units, r, groups)
    found = pointing_summary(rows, relevance, early=1, deep=1)
    found = found[found["measure"] == "pointing"].set_index("quantity")
    subjects = np.array(groups)
    best = 6 + int(r[6:].mean(axis=1).argmax())
    rest = [head for head in range(8) if head != best]

    def quantities(clips: np.ndarray) -> tuple[float, float]:
        p, of_r = pointing[:, clips].mean(axis=1), r[:, clips].mean(axis=1)
        return p[best] - p[rest].mean(), float(spearman(of_r, p))

    own = quantities(np.full(len(subjects), True))
    without = [quantities(subjects != subject) for subject in np.unique(subjects)]
    for place, quantity in enumerate(("difference to all other heads", CORRELATION)):
        spread = math.sqrt(0.9 * sum((one[place] - own[place]) ** 2 for one in without))
        assert spread > 0
        ends = own[place] - 2.262157 * spread, own[place] + 2.262157 * spread  # Student's t, 9 degrees of freedom
        assert found.loc[quantity, "value"] == pytest.approx(own[place])
        assert found.loc[quantity, ["low", "high"]].tolist() == pytest.approx([max(ends[0], -1), min(ends[1], 1)])
    assert (found["groups"] == 10).all()
    assert (found["clips"] == 40).all()


def test_relevance_of_other_clips_has_an_error_of_its_own():
    units, groups, pointing, r = planted()
    noise = np.random.default_rng(2).random(r.shape)
    r = 0.1 * r + 0.9 * noise
    rows = rows_of(units, pointing, groups)
    other = relevance_of(units, r, groups, name="train")
    same = pointing_summary(rows, relevance_of(units, r, groups), early=1, deep=1).set_index(["measure", "quantity"])
    apart = pointing_summary(rows, other, early=1, deep=1).set_index(["measure", "quantity"])
    assert apart["value"].to_dict() == pytest.approx(same["value"].to_dict())
    assert apart.loc[("pointing", CORRELATION), "low"] < apart.loc[("pointing", CORRELATION), "high"]
    few = pointing_summary(rows, relevance_of(units, r[:, :20], groups[:20], name="train"), early=1, deep=1)
    few = few.set_index("quantity")["low"]
    assert few[CORRELATION].isna().all()  # five subjects of relevance are too few
    assert few[RELEVANT].notna().all()  # but the scores are of ten


def test_the_correlation_of_unrelated_scores_has_an_interval_around_nought():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(8):
        units, groups, _, _ = planted(seed=seed)
        pointing, r = rng.random((2, 8, len(groups)))
        found = pointing_summary(rows_of(units, pointing, groups), relevance_of(units, r, groups), 1, 1)
        low, high = found[(found["quantity"] == CORRELATION) & (found["measure"] == "share")][["low", "high"]].iloc[0]
        held += low <= 0 <= high
    assert held >= 7


def test_a_score_that_is_the_same_for_all_heads_has_no_correlation():
    units, groups, pointing, r = planted()
    rows = rows_of(units, np.full_like(pointing, 0.5), groups, "action")
    found = pointing_summary(rows, relevance_of(units, r, groups), early=1, deep=1).set_index(["measure", "quantity"])
    row = found.loc[("pointing", CORRELATION)]
    assert row[["value", "low", "high"]].isna().all()
    assert found.loc[("pointing", "difference to all other heads"), "value"] == pytest.approx(0)


def test_relevance_of_other_heads_or_of_a_race_is_refused():
    units, groups, pointing, r = planted()
    rows = rows_of(units, pointing, groups)
    with pytest.raises(ValueError, match=r"of other heads, e\.g\. layer, site, head \(3, 'attention', 1\)"):
        pointing_summary(rows, relevance_of(units[:-1], r, groups), 1, 1)
    with pytest.raises(ValueError, match="table comes from a race"):
        pointing_summary(rows, relevance_of(units, r, groups).iloc[1:], 1, 1)


def test_tables_are_files_by_split(tmp_path):
    units, groups, pointing, r = planted()
    rows = rows_of(units, pointing, groups)
    tables = {"heads": pointing_table(rows), "summary": pointing_summary(rows, relevance_of(units, r, groups), 1, 1)}
    paths = write_pointing_tables(tables, tmp_path, "test")
    assert [path.name for path in paths] == ["pointing_test.csv", "pointing_test_summary.csv"]
    assert pd.read_csv(paths[0])["pointing"].to_numpy() == pytest.approx(
        tables["heads"]["pointing"].to_numpy(), rel=1e-5
    )
