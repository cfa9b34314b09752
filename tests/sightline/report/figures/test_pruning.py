"""The accuracy curves of pruned models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from sightline.report.figures.pruning import accuracy_against_cost, accuracy_against_depth
from sightline.report.figures.pruning_curves import MODE_COLOURS
from sightline.report.tables.pruning import PruningRow, read_pruning_table, write_pruning_table
from sightline.types import Unit


def model(mode: str, k: int, top1: float | None, **fields) -> PruningRow:
    named = {} if mode == "none" else {"method": "one_shot", "score": "r"}
    bounds = {} if top1 is None else {"top1_low": top1 - 2, "top1_high": top1 + 2}
    fields = named | bounds | {"backbone": "swin", "plan_id": f"{mode}-{k}", "macs": 10**9 * (24 - k)} | fields
    return PruningRow(mode=mode, k=k, top1=top1, **({"removed_layers": tuple(range(k))} | fields))


ROWS = [model("none", 0, 80)]
ROWS += [model("lowest", k, 80 - k) for k in (2, 4)] + [model("highest", k, 80 - 15 * k) for k in (2, 4)]


@pytest.fixture
def frame_of(tmp_path):
    def read(rows) -> pd.DataFrame:
        write_pruning_table(rows, tmp_path / "pruning.csv")
        return read_pruning_table(tmp_path / "pruning.csv")

    return read


def curves(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_depth_has_a_curve_per_mode_from_the_unpruned_model(frame_of):
    figure = accuracy_against_depth(frame_of(ROWS), chance=10, majority=36)
    (axes,) = figure.axes
    assert legend(figure) == ["lowest", "highest", "unpruned", "majority class", "chance"]
    lines = curves(axes)
    np.testing.assert_allclose(lines["lowest"], [[0, 80], [2, 78], [4, 76]])
    np.testing.assert_allclose(lines["highest"], [[0, 80], [2, 50], [4, 20]])
    assert {*lines["unpruned"][:, 1]} == {80}
    assert {*lines["chance"][:, 1]} == {10}
    assert len(axes.collections) == 2


def test_cost_is_in_billions_and_numbers_the_removed_layers(frame_of):
    (axes,) = accuracy_against_cost(frame_of(ROWS)).axes
    np.testing.assert_allclose(curves(axes)["lowest"], [[20, 76], [22, 78], [24, 80]])
    np.testing.assert_allclose(curves(axes)["unpruned"], [[24, 80]])
    assert sorted(text.get_text() for text in axes.texts if text.get_gid() != "notes") == ["2", "2", "4", "4"]


def test_seeds_are_averaged(frame_of):
    rows = [*ROWS, *(model("random", 2, top1, seed=seed) for seed, top1 in enumerate((60, 66, 75)))]
    figure = accuracy_against_depth(frame_of(rows))
    np.testing.assert_allclose(curves(figure.axes[0])["random (3 seeds)"], [[0, 80], [2, 67]])
    shade = figure.axes[0].collections[2].get_paths()[0].vertices
    assert {60.0, 75.0} == {*shade[shade[:, 0] == 2][:, 1]}


def test_methods_are_told_apart_only_where_they_differ(frame_of):
    rows = [*ROWS, model("lowest", 3, 78, method="greedy")]
    figure = accuracy_against_depth(frame_of(rows))
    assert legend(figure)[:3] == ["lowest, one_shot", "highest, one_shot", "lowest, greedy"]
    colours = [line.get_color() for line in figure.axes[0].lines[:3]]
    assert len(set(colours)) == 3


def test_one_panel_per_backbone_with_the_same_colours(frame_of):
    rows = ROWS + [dataclasses.replace(row, backbone="mvit") for row in ROWS if row.mode != "lowest"]
    figure = accuracy_against_depth(frame_of(rows))
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("swin", "mvit")
    colour = {
        axes: next(line.get_color() for line in axes.lines if line.get_label() == "highest") for axes in figure.axes
    }
    assert colour[first] == colour[second]


def test_without_unpruned_model_or_intervals(frame_of):
    rows = [dataclasses.replace(row, top1_low=None, top1_high=None) for row in ROWS[1:]]
    for draw in (accuracy_against_depth, accuracy_against_cost):
        figure = draw(frame_of(rows))
        assert legend(figure) == ["lowest", "highest"]
        assert not any("Shaded" in text.get_text() for text in figure.axes[0].texts)


def test_rows_that_cannot_be_drawn_are_left_out_or_refused(frame_of):
    heads = model("lowest", 1, 79, removed_layers=(), removed_heads=(Unit(0, "attention", 1),))
    untested = model("lowest", 3, None)
    np.testing.assert_allclose(
        curves(accuracy_against_depth(frame_of([*ROWS, heads, untested])).axes[0])["lowest"][:, 0], [0, 2, 4]
    )
    for rows in ([], [ROWS[0], heads, untested]):
        with pytest.raises(ValueError, match="None of the rows"):
            accuracy_against_depth(frame_of(rows))
    with pytest.raises(ValueError, match="top1 and macs"):
        accuracy_against_cost(frame_of([dataclasses.replace(row, macs=None) for row in ROWS]))


METHODS = [("gradient", "taylor", [None]), ("block_influence", "cosine", [None]), ("random", "draw", [0, 1])]
BASELINES = [
    model("lowest", k, 70 - k, method=method, score=score, seed=seed)
    for method, score, seeds in METHODS
    for seed in seeds
    for k in (2, 4)
]


def test_baselines_go_by_their_names_beside_both_modes_of_relevance(frame_of):
    figure = accuracy_against_depth(frame_of([*ROWS, *BASELINES]))
    labels = ["lowest, one_shot", "highest, one_shot", "gradient", "block influence", "random (2 seeds)"]
    assert legend(figure)[:5] == labels
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert len({lines[label].get_color() for label in labels}) == 5
    # Five curves' shades would hide each other: only those of relevance and its control are drawn.
    shades = {to_hex(shade.get_facecolor()[0][:3]) for shade in figure.axes[0].collections}
    assert shades == {to_hex(lines[label].get_color()) for label in labels[:2]}
    (axes,) = accuracy_against_cost(frame_of([*ROWS, *BASELINES])).axes
    assert not [text for text in axes.texts if text.get_gid() != "notes"]


def test_the_spread_over_seeds_starts_from_the_one_full_model(frame_of):
    figure = accuracy_against_depth(frame_of([*ROWS, *(row for row in BASELINES if row.method == "random")]))
    shade = figure.axes[0].collections[-1]
    outline = shade.get_paths()[0].vertices
    assert {80.0} == {*outline[outline[:, 0] == 0][:, 1]}


def test_greedy_s_control_has_its_colour_and_another_line(frame_of):
    rows = [*ROWS, *(model(mode, 2, 70, method="greedy") for mode in ("lowest", "highest"))]
    lines = {line.get_label(): line for line in accuracy_against_depth(frame_of(rows)).axes[0].lines}
    lowest, highest = lines["lowest, greedy"], lines["highest, greedy"]
    assert lowest.get_color() == highest.get_color()
    assert lowest.get_linestyle() != highest.get_linestyle()


def test_heads_are_drawn_over_cost_alone(frame_of):
    units = [Unit(0, "attention", head) for head in range(4)]
    heads = [
        model("lowest", k, 79, method="heads", removed_layers=(), removed_heads=tuple(units[:k]), macs=23 * 10**9)
        for k in (2, 4)
    ]
    frame = frame_of([*ROWS, *heads])
    assert "lowest, heads" in legend(accuracy_against_cost(frame))
    assert legend(accuracy_against_depth(frame))[:2] == ["lowest", "highest"]


def test_panels_share_limits_that_hold_all_of_them(frame_of):
    better = [
        dataclasses.replace(row, backbone="vit", top1=row.top1 + 15, top1_low=None, top1_high=None) for row in ROWS
    ]
    for draw in (accuracy_against_depth, accuracy_against_cost):
        figure = draw(frame_of([*ROWS, *better]))
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["swin", "vit"]
        for axes in figure.axes:
            bottom, top = axes.get_ylim()
            assert bottom == 0
            assert 95 < top <= 102


def test_runs_are_averaged_also_where_nothing_is_removed(frame_of):
    """Of two runs with 80 and 90 % unpruned, and 78 and 84 % after two cuts, the mean is drawn, the range shaded."""
    rows = [model("none", 0, top1, plan_id=f"full{top1}") for top1 in (80, 90)]
    rows += [model("lowest", 2, top1, plan_id=f"cut{top1}") for top1 in (78, 84)]
    (axes,) = accuracy_against_depth(frame_of(rows)).axes
    np.testing.assert_allclose(curves(axes)["lowest"], [[0, 85], [2, 81]])
    assert {*curves(axes)["unpruned"][:, 1]} == {85}
    (shade,) = axes.collections
    outline = {tuple(point) for point in shade.get_paths()[0].vertices}
    assert outline == {(0, 80), (0, 90), (2, 78), (2, 84)}


def reduced(k: int, top1: float, tokens: str = "random", macs: int = 15) -> PruningRow:
    mode, named = ("lowest", {}) if k else ("reduced", {"method": "tokens", "score": "none"})
    return model(mode, k, top1, tokens=tokens, plan_id=f"{mode}-{k}-{tokens}", macs=macs * 10**9, **named)


def test_layers_with_fewer_tokens_are_a_curve_that_starts_at_these_tokens_alone(frame_of):
    frame = frame_of(
        [*ROWS, reduced(0, 60, "random_kept0.3"), reduced(0, 77), reduced(2, 72, macs=12), reduced(4, 65, macs=9)]
    )
    depth, cost = accuracy_against_depth(frame), accuracy_against_cost(frame)
    name = "lowest, tokens random"
    np.testing.assert_allclose(curves(depth.axes[0])[name], [[0, 77], [2, 72], [4, 65]])
    np.testing.assert_allclose(curves(depth.axes[0])["lowest"], [[0, 80], [2, 78], [4, 76]])
    np.testing.assert_allclose(curves(cost.axes[0])[name], [[9, 65], [12, 72], [15, 77]])
    # Tokens alone are points of their own, which no way of pruning made; the curve only begins there.
    assert legend(cost)[:5] == ["lowest", "highest", "tokens random_kept0.3", "tokens random", name]
    marked = {line.get_label(): line.get_markevery() for line in cost.axes[0].lines}
    assert (marked["lowest"], marked[name], marked["tokens random"]) == ([0, 1], [0, 1], [0])  # the last is the start
    lines = [next(line for line in figure.axes[0].lines if line.get_label() == name) for figure in (depth, cost)]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 1
    without = accuracy_against_depth(frame_of([*ROWS, reduced(2, 72, macs=12)]))
    np.testing.assert_allclose(curves(without.axes[0])[name], [[2, 72]])


def test_tokens_alone_are_points_over_cost_and_nothing_over_depth(frame_of):
    frame = frame_of([reduced(0, 77), reduced(0, 70, "random_kept0.3", 8), *ROWS])
    cost = accuracy_against_cost(frame)
    lines = {line.get_label(): line for line in cost.axes[0].lines}
    for name, point in (("tokens random", [15, 77]), ("tokens random_kept0.3", [8, 70])):
        np.testing.assert_allclose(lines[name].get_xydata(), [point])
        assert lines[name].get_linestyle() == "None"
    assert lines["tokens random"].get_color() != lines["tokens random_kept0.3"].get_color()
    colours = {label: line.get_color() for label, line in lines.items()}
    assert colours["lowest"] == MODE_COLOURS["lowest"]  # whatever stands before it in the table
    assert legend(accuracy_against_depth(frame))[:2] == ["lowest", "highest"]
    alone = accuracy_against_cost(frame_of([ROWS[0], reduced(0, 77)]))
    assert legend(alone) == ["tokens random", "unpruned"]
    with pytest.raises(ValueError, match="model with removed layers"):
        accuracy_against_depth(frame_of([ROWS[0], reduced(0, 77)]))


def test_another_runtime_s_whole_model_is_no_reference(frame_of):
    elsewhere = [dataclasses.replace(row, runtime="onnx", plan_id=f"{row.plan_id}o", top1=60.0) for row in ROWS[:2]]
    (axes,) = accuracy_against_depth(frame_of([*ROWS, *elsewhere])).axes
    assert {*curves(axes)["unpruned"][:, 1]} == {80}
    np.testing.assert_allclose(curves(axes)["lowest, onnx"], [[0, 60], [2, 60]])
