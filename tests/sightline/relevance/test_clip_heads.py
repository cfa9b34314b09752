"""Which heads a clip's pictures show, worked out by hand."""

import pandas as pd
import pytest

from sightline.relevance.clip_heads import HeadChooser
from sightline.types import Unit

CLASSES = ["drive", "phone"]
# r of every head (layer, head) of four layers, by clip; a and b are of class 0, c of class 1.
SCORES = {
    "a": {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.9, (1, 1): 0.3, (2, 0): 0.4, (2, 1): 0.5, (3, 0): 0.6, (3, 1): 0.05},
    "b": {(0, 0): 0.5, (0, 1): 0.2, (1, 0): 0.1, (1, 1): 0.3, (2, 0): 0.4, (2, 1): 0.0, (3, 0): 0.6, (3, 1): 0.95},
    "c": {(0, 0): 0.1, (0, 1): 0.0, (1, 0): 0.2, (1, 1): 0.3, (2, 0): 0.9, (2, 1): 0.0, (3, 0): 0.6, (3, 1): 0.05},
}


def table(scores=SCORES) -> pd.DataFrame:
    rows = [
        {"sample_id": name, "label": int(name == "c"), "predicted": 0, "group": name, "layer": layer,
         "site": "attention", "head": head, "p_true": 0.5, "p_true_ablated": 0.5, "dprob": r, "jsd": 1 - r, "r": r}
        for name, of_clip in scores.items()
        for (layer, head), r in of_clip.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def shown(heads) -> dict:
    return {(h.depth, h.choice): ((h.unit.layer, h.unit.head), round(h.score, 6)) for h in heads}


def test_a_scored_clip_has_heads_of_its_own():
    heads = HeadChooser(table(), CLASSES, early=1, deep=1, last=2).choose("a", 0)
    assert heads.scored == 0
    assert shown(heads.extremes) == {
        ("all", "most"): ((1, 0), 0.9), ("all", "least"): ((3, 1), 0.05),
        ("early", "most"): ((0, 1), 0.2), ("early", "least"): ((0, 0), 0.1),
        ("intermediate", "most"): ((1, 0), 0.9), ("intermediate", "least"): ((1, 1), 0.3),
        ("deep", "most"): ((3, 0), 0.6), ("deep", "least"): ((3, 1), 0.05),
    }  # fmt: skip
    # Of class 0 among layers 2 and 3: means 0.4, 0.25, 0.6, 0.5; the score is that on the clip.
    [special] = heads.specialised
    assert (special.unit, special.score) == (Unit(3, "attention", 0), 0.6)


def test_heads_of_the_class_stand_in_for_a_clip_that_was_not_scored():
    heads = HeadChooser(table(), CLASSES, early=1, deep=1, last=1).choose("new", 0)
    assert heads.scored == 2
    found = shown(heads.extremes)
    assert found[("early", "most")] == ((0, 0), 0.3)
    assert found[("all", "most")] == ((3, 0), 0.6)
    assert found[("all", "least")] == ((0, 1), 0.2)
    assert found[("deep", "least")] == ((3, 1), 0.5)
    other = HeadChooser(table(), CLASSES, early=1, deep=1, last=2).choose("new", 1)
    assert other.specialised[0].unit == Unit(2, "attention", 0)


def test_another_score_chooses_others():
    heads = HeadChooser(table(), CLASSES, early=1, deep=1, last=2, score="jsd").choose("a", 0)
    assert shown(heads.extremes)[("all", "most")] == ((3, 1), 0.95)


def test_a_class_that_was_not_scored_is_named():
    only = table({"a": SCORES["a"]})
    with pytest.raises(ValueError, match="Neither new nor any other clip of phone was scored"):
        HeadChooser(only, CLASSES, 1, 1, 1).choose("new", 1)
    with pytest.raises(ValueError, match=r"^No clip of phone was scored"):
        HeadChooser(only, CLASSES, 1, 1, 1).choose("", 1)


def test_a_raced_table_is_refused():
    with pytest.raises(ValueError, match="from a race"):
        HeadChooser(table().iloc[:-1], CLASSES, 1, 1, 1)


def test_the_most_relevant_head_of_all_clips_is_that_of_the_highest_mean():
    [head] = HeadChooser(table(), CLASSES, early=1, deep=1, last=1).most_relevant
    # Means over a, b and c: 0.6 of (3, 0), 0.567 of (2, 0), 0.4 of (1, 0), 0.35 of (3, 1).
    assert (head.unit, head.choice) == (Unit(3, "attention", 0), "most")
    assert head.score == pytest.approx(0.6)
