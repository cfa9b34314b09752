import numpy as np
import pandas as pd
import pytest

from sightline.relevance.ranking import check_race, layer_means, layer_order, rank_units


def layer_table(**scores: list[float]) -> pd.DataFrame:
    rows = [
        {
            "sample_id": str(i),
            "layer": int(name[1:]),
            "site": None,
            "head": np.nan,
            "r": r,
            "jsd": r / 2,
            "dprob": 1 - r,
        }
        for name, values in scores.items()
        for i, r in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_means_by_hand():
    table = layer_table(l0=[0.25, 0.5], l3=[0.1, 0.1], l1=[0.0, 0.75])
    ranking = rank_units(table)
    assert ranking["layer"].tolist() == [3, 0, 1]  # 0.1, 0.375, 0.375: the tie goes to the lower index
    assert ranking["mean"].tolist() == pytest.approx([0.1, 0.375, 0.375])
    assert ranking["median"].tolist() == pytest.approx([0.1, 0.375, 0.375])
    assert ranking["n"].tolist() == [2, 2, 2]
    assert rank_units(table, "dprob")["layer"].tolist() == [0, 1, 3]
    means = layer_means(table)
    assert means.index.tolist() == [0, 1, 3]
    assert means.loc[1] == pytest.approx(0.375)


def test_heads_of_different_sites_are_different_units():
    rows = [(site, head) for site in ("spatial", "temporal") for head in (0, 1)]
    table = pd.DataFrame(
        [{"sample_id": "a", "layer": 0, "site": s, "head": h, "r": i / 10} for i, (s, h) in enumerate(rows)]
    )
    ranking = rank_units(table)
    assert list(zip(ranking["site"], ranking["head"], strict=True)) == rows


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="one of r, jsd, dprob"):
        rank_units(layer_table(l0=[0.1]), "accuracy")
    with pytest.raises(ValueError, match="no rows"):
        rank_units(layer_table(l0=[0.1]).iloc[:0])
    with pytest.raises(ValueError, match="between 1 and 2 samples"):
        rank_units(layer_table(l0=[0.1], l1=[0.1, 0.2]))


RACE = {
    "score": "r",
    "units": [[0, "", -1], [1, "", -1], [3, "", -1]],
    "settled_at": [None, 1, None],
    "sets": [
        {"mode": "lowest", "k": 1, "units": [[3, "", -1]]},
        {"mode": "highest", "k": 1, "units": [[1, "", -1]]},
    ],
}


def test_a_race_ranks_by_its_sets():
    # By means of what each unit saw, layer 1 would come first; layer 2 took no part in the race.
    table = layer_table(l0=[0.25, 0.5], l1=[0.1], l2=[0.4, 0.6], l3=[0.3, 0.3])
    ranking = rank_units(table, race=RACE)
    assert ranking["layer"].tolist() == [3, 0, 2, 1]
    assert ranking["n"].tolist() == [2, 2, 2, 1]
    assert ranking["settled_at"].fillna(-1).tolist() == [-1, -1, -1, 1]
    assert layer_order(table, race=RACE).to_dict() == {0: 1, 1: 3, 2: 2, 3: 0}
    assert layer_means(table, race=RACE).loc[1] == pytest.approx(0.1)
    full = layer_table(l0=[0.25, 0.5], l3=[0.1, 0.1])
    assert layer_order(full).to_dict() == pytest.approx({0: 0.375, 3: 0.1})


def test_ties_of_a_race_share_a_place():
    table = layer_table(l0=[0.3, 0.3], l1=[0.9, 0.9], l2=[0.3, 0.3], l3=[0.1, 0.1])
    assert layer_order(table, race=RACE).to_dict() == {0: 1, 1: 2, 2: 1, 3: 0}


def test_a_race_answers_only_what_it_was_run_for():
    table = layer_table(l0=[0.25, 0.5], l1=[0.1], l3=[0.3, 0.3])
    with pytest.raises(ValueError, match="raced by r, which says little about jsd"):
        rank_units(table, "jsd", RACE)
    with pytest.raises(ValueError, match=r"units that the table lacks, e.g. \(3, '', -1\)"):
        rank_units(layer_table(l0=[0.25, 0.5], l1=[0.1]), race=RACE)
    check_race(RACE, "r", [0, 1, 3], [1], ["lowest", "highest"])
    with pytest.raises(ValueError, match="decided the sets highest 1, lowest 1, not lowest 2"):
        check_race(RACE, "r", [0, 1, 3], [1, 2], ["lowest"])
    with pytest.raises(ValueError, match="those that can be removed are"):
        check_race(RACE, "r", [0, 1], [1], ["lowest"])
    with pytest.raises(ValueError, match="raced by r"):
        check_race(RACE, "dprob", [0, 1, 3], [1], ["lowest"])
