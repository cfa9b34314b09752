"""Greedy choices by hand, and against ablating the smaller models one by one."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch

from sightline.pruning.greedy import Cut, greedy_cuts, score_without
from sightline.relevance.scores import score
from sightline.types import LayerInfo

LABELS = torch.tensor([0, 3, 4])
NAMES = ["c0", "c1", "c2"]


def layers(count: int, fixed: tuple[int, ...] = ()) -> list[LayerInfo]:
    return [LayerInfo(index, 0, (), removable=index not in fixed) for index in range(count)]


def test_a_layer_that_stands_in_for_another_stays_once_that_went():
    means = {
        (): pd.Series({0: 0.3, 1: 0.1, 2: 0.2, 3: 0.9}),
        (1,): pd.Series({0: 0.4, 2: 0.8, 3: 0.9}),  # 2 did 1's work
        (0, 1): pd.Series({2: 0.7, 3: 0.7}),
    }
    cuts = greedy_cuts(layers(4), 3, "lowest", means.__getitem__)
    assert cuts == [Cut(1, 0.1), Cut(0, 0.4), Cut(2, 0.7)]


def test_highest_and_what_cannot_go():
    means = {(): pd.Series({0: 0.5, 1: 0.5, 2: 0.9}), (0,): pd.Series({1: 0.2, 2: 0.1})}
    assert greedy_cuts(layers(3, fixed=(2,)), 2, "highest", means.__getitem__) == [Cut(0, 0.5), Cut(1, 0.2)]
    with pytest.raises(ValueError, match="Cannot cut 3 layers: 2 of 3"):
        greedy_cuts(layers(3, fixed=(2,)), 3, "lowest", means.__getitem__)


def test_steps_are_ablations_of_the_smaller_model_and_are_kept(tiny_swin, tiny_clips, tmp_path):
    asked = []

    def batches(places):
        asked.append(places)
        for place in places:  # one by one, so that parts and order matter
            yield {
                "clip": tiny_clips[[place]], "label": LABELS[[place]], "sample_id": [NAMES[place]], "group": ["g"],
                "unreadable": [],
            }  # fmt: skip

    def means_without(removed: tuple[int, ...]) -> pd.Series:
        table = score_without(tiny_swin, removed, tmp_path, NAMES, batches, data_sha256="d")
        return table.groupby("layer")["r"].mean()

    def slow_means(removed: tuple[int, ...]) -> pd.Series:
        with torch.no_grad():
            base = tiny_swin(tiny_clips, skip=removed)
            left = [index for index in range(4) if index not in removed]
            ablated = torch.stack([tiny_swin(tiny_clips, skip=(*removed, index)) for index in left])
        return pd.Series(score(base, ablated, LABELS).r.mean(1).numpy(), index=left)

    for removed in ((1,), (0, 2)):
        pd.testing.assert_series_equal(
            means_without(removed), slow_means(removed), check_names=False, check_index_type=False, atol=1e-5
        )
    asked.clear()
    found = greedy_cuts(layers(4), 3, "highest", lambda gone: means_without(gone) if gone else slow_means(gone))
    slow = greedy_cuts(layers(4), 3, "highest", slow_means)
    assert [cut.layer for cut in found] == [cut.layer for cut in slow]
    steps = {path.name for path in (tmp_path / "greedy").iterdir()}
    assert steps >= {"without-1", "without-0-2", f"without-{slow[0].layer}"}
    asked.clear()
    again = greedy_cuts(layers(4), 3, "highest", lambda gone: means_without(gone) if gone else slow_means(gone))
    assert (again, asked) == (found, [])
    # An interrupted job repeats the step that it lost, and no other.
    lost = sorted(cut.layer for cut in found[:2])
    shutil.rmtree(tmp_path / "greedy" / f"without-{lost[0]}-{lost[1]}")
    assert greedy_cuts(layers(4), 3, "highest", lambda gone: means_without(gone) if gone else slow_means(gone)) == found
    assert asked == [[0, 1, 2]]
    # Other data make another table.
    score_without(tiny_swin, (1,), tmp_path, NAMES, batches, data_sha256="other")
    assert len(asked) == 2
