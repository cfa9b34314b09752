import numpy as np
import pandas as pd
import pytest

from sightline.relevance.ranking import layer_means, rank_units


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
