"""The figure of token reductions: what is drawn where."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sightline.report.figures.tokens import FEW, accuracy_of_tokens, pruned_groups, relative_speed, token_curves
from sightline.report.tables.pruning import PruningRow, read_pruning_table, write_pruning_table
from sightline.report.tables.tokens import COLUMNS
from sightline.types import Unit


def table(*methods: str) -> pd.DataFrame:
    """All tokens and every method at two shares; of the control two draws."""
    common = {"options": "", "timing_run": "now", "batch": 8, "tokens": "", "backbone": "demo"}
    rows = [{"method": "all", "kept_asked_pct": 100, "top1": 80, "macs": 2e9, "clips_per_s": 4.0}]
    for method in methods:
        for kept in (50, 90):
            for seed in (0, 1) if method == "random" else (None,):
                rows.append(
                    {
                        "method": method, "seed": seed, "kept_asked_pct": kept, "top1": kept / 2 + 30 + (seed or 0),
                        "macs": kept * 2e7, "clips_per_s": 400 / kept,
                        **({} if method == "random" else {"vs_random": 1, "vs_random_low": -1, "vs_random_high": 3}),
                    }
                )  # fmt: skip
    frame = pd.DataFrame([common | {"top1_low": r["top1"] - 5, "top1_high": r["top1"] + 4} | r for r in rows])
    return frame.reindex(columns=list(COLUMNS))


@pytest.fixture
def pruning(tmp_path) -> pd.DataFrame:
    def row(plan_id, **more):
        plain = {"mode": "lowest", "top1": 70.0, "macs": 1_000_000_000, "clips_per_s": 6.0, "timing_run": "before"}
        return PruningRow(backbone="demo", plan_id=plan_id, **plain | {"method": "relevance", "score": "r"} | more)

    heads = {"removed_heads": (Unit(0, "a", 1),)}
    rows = [
        row("full", mode="none", clips_per_s=3.0),
        row("l2", k=2, removed_layers=(1, 2), macs=800_000_000),
        row("l1", k=1, removed_layers=(1,)),
        row("control", mode="highest", k=1, removed_layers=(0,)),
        row("drawn", method="random", k=1, removed_layers=(0,)),
        row("h", method="heads", k=1, **heads),
        row("lh", method="layers1_heads", k=2, removed_layers=(1,), **heads),
        row("lt", k=1, removed_layers=(1,), tokens="random", clips_per_s=None),
        row("t", method="tokens", score="none", mode="reduced", tokens="random"),
        row("half", k=1, removed_layers=(1,), format="bf16"),
        row("untested", k=1, removed_layers=(3,), top1=None),
    ]
    write_pruning_table(rows, tmp_path / "pruning.csv")
    return read_pruning_table(tmp_path / "pruning.csv")


def test_pruned_models_are_grouped_by_what_they_lack(pruning):
    groups = dict(pruned_groups(pruning))
    assert {name: rows["plan_id"].tolist() for name, rows in groups.items()} == {
        "layers": ["l2", "l1"],
        "heads": ["h"],
        "layers and heads": ["lh"],
        "and fewer tokens": ["lt"],
    }
    assert groups["layers"]["speed"].tolist() == [2.0, 2.0]  # 6 against 3 clips/s of their own measurement
    assert list(pruned_groups(None)) == []


def test_speed_is_against_the_reference_of_the_same_measurement():
    rows = pd.DataFrame({"timing_run": ["a", "a", "b", "c"], "clips_per_s": [2.0, 3.0, 8.0, 4.0]})
    speed = relative_speed(rows, pd.Series([True, False, False, True]))
    np.testing.assert_array_equal(speed, [1.0, 1.5, np.nan, 1.0])


def test_every_method_is_a_curve_of_its_own():
    seven = ["random", "grid", "b", "c", "d", "e", "f"]
    curves = token_curves(table(*seven))
    assert [curve.label for curve in curves] == ["random (2 draws)", *seven[1:]]
    assert len({(curve.colour, curve.line) for curve in curves}) == len({curve.marker for curve in curves}) == 7
    assert [curve.shaded for curve in curves] == [True] + [False] * 6
    few = token_curves(table(*seven[: FEW + 1]))
    assert all(curve.shaded for curve in few)
    control = curves[0].points
    assert control["top1"].tolist() == [55.5, 75.5]
    assert control["speed"].tolist() == pytest.approx([2.0, 10 / 9])


def test_three_panels_with_pruned_models_and_the_reference(pruning):
    figure = accuracy_of_tokens(table("random", "grid"), pruning)
    cost, speed, against = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    pruned = ["pruned: layers", "pruned: heads", "pruned: layers and heads", "pruned: and fewer tokens"]
    assert labels == [*pruned, "random (2 draws)", "grid", "all tokens, unpruned"]
    lines = {line.get_label(): line for line in cost.lines}
    np.testing.assert_allclose(lines["grid"].get_xdata(), [1.0, 1.8])
    np.testing.assert_allclose(lines["grid"].get_ydata(), [55, 75])
    np.testing.assert_allclose(lines["pruned: layers"].get_xdata(), [0.8, 1.0])
    np.testing.assert_allclose({line.get_label(): line for line in speed.lines}["grid"].get_xdata(), [10 / 9, 2.0])
    assert [tick.get_text() for tick in against.get_xticklabels()] == ["90 %", "50 %"]


def test_without_times_or_control_there_are_fewer_panels():
    untimed = table("random", "grid").assign(clips_per_s=np.nan, batch=np.nan)
    assert len(accuracy_of_tokens(untimed).axes) == 2
    assert len(accuracy_of_tokens(table("random")).axes) == 2
    with pytest.raises(ValueError, match="No token reduction was tested"):
        accuracy_of_tokens(table())
