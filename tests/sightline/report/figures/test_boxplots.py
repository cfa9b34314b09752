"""The box plots: what is drawn, what is said about what is not, and how large the files are."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from sightline.report.figures.box_layout import layer_spans, place_boxes, split_rows
from sightline.report.figures.boxplots import (
    MOST_DOTS,
    head_boxplot,
    head_boxplot_interactive,
    layer_boxplot,
    layer_boxplot_interactive,
    save_figure,
)
from sightline.report.tables.unit_statistics import BOX_MEANING, unit_statistics

SWIN_S = [3] * 2 + [6] * 2 + [12] * 18 + [24] * 2


def layer_scores(layers: int, samples: int) -> pd.DataFrame:
    """Skewed to 0 as relevance is, with a tail of outliers."""
    values = np.random.default_rng(0).standard_gamma(0.4, layers * samples) * 0.02
    table = pd.DataFrame({"layer": np.repeat(np.arange(layers), samples), "r": values.clip(max=1)})
    return table.assign(site=None, head=None)


def head_scores(heads: list[int], sites: tuple[str, ...] = ("attention",), samples: int = 12) -> pd.DataFrame:
    units = [(layer, site, head) for layer, count in enumerate(heads) for site in sites for head in range(count)]
    table = pd.DataFrame(units, columns=["layer", "site", "head"])
    table = table.loc[np.repeat(table.index, samples)].reset_index(drop=True)
    return table.assign(r=np.random.default_rng(1).random(len(table)))


def drawn(axes, gid):
    """The number of shapes of the artists with this name."""
    paths = sum(len(item.get_paths()) for item in axes.collections if item.get_gid() == gid)
    return paths + sum(len(line.get_xdata()) for line in axes.lines if line.get_gid() == gid)


def notes(figure):
    return next(text.get_text() for text in figure.axes[0].texts if text.get_gid() == "notes")


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_layer_plot_has_a_box_per_layer_with_original_indices():
    table = layer_scores(4, 30)
    table["layer"] = table["layer"].map({0: 0, 1: 2, 2: 5, 3: 11})
    (axes,) = layer_boxplot(table).axes
    assert [drawn(axes, gid) for gid in ("boxes", "medians", "means")] == [4, 4, 4]
    assert labels(axes.get_xticklabels()) == ["0", "2", "5", "11"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_ylim()[0]) == ("Layer", "Relevance r", 0)


def test_boxes_stand_at_the_statistics():
    table = layer_scores(1, 30)
    (axes,) = layer_boxplot(table).axes
    (row,) = unit_statistics(table).to_dict("records")
    (box,) = next(item for item in axes.collections if item.get_gid() == "boxes").get_paths()
    assert {*box.vertices[:, 1]} == {row["q25"], row["q75"]}


@pytest.mark.parametrize(
    ("heads", "sites", "rows", "boxes"),
    [
        ([2, 2, 4, 4, 4, 4, 8, 8], ("attention",), 1, 36),
        ([12] * 12, ("temporal", "spatial"), 4, 288),
        (SWIN_S, ("attention",), 4, 282),
    ],
)
def test_head_plot_has_a_box_per_head_and_all_labels(heads, sites, rows, boxes):
    figure = head_boxplot(head_scores(heads, sites))
    assert len(figure.axes) == rows
    assert sum(drawn(axes, "boxes") for axes in figure.axes) == boxes
    layers = [label for axes in figure.axes for label in labels(axes.get_xticklabels())]
    assert layers == [str(layer) for layer in range(len(heads))]
    assert sum(len(axes.get_xticklabels(minor=True)) for axes in figure.axes) == boxes
    legend = figure.axes[0].get_legend()
    assert (labels(legend.get_texts()) if legend else []) == (list(sites) if len(sites) > 1 else [])


def test_rows_of_layers_are_balanced_and_complete():
    spans = layer_spans(place_boxes(unit_statistics(head_scores(SWIN_S, samples=1))))
    rows = split_rows(spans, 80)
    assert [span for row in rows for span in row] == spans
    lengths = [row[-1].right - row[0].left for row in rows]
    assert len(rows) == 4
    assert max(lengths) < 1.1 * min(lengths)


def test_a_layer_wider_than_a_row_gets_its_own():
    spans = layer_spans(place_boxes(unit_statistics(head_scores([100, 2], samples=1))))
    assert [len(row) for row in split_rows(spans, 80)] == [1, 1]


def test_few_outliers_do_not_squash_the_boxes_and_are_counted():
    table = layer_scores(2, 100).assign(r=np.tile(np.linspace(0, 0.01, 100), 2))
    table.loc[[0, 150], "r"] = [0.5, 0.25]
    figure = layer_boxplot(table)
    assert figure.axes[0].get_ylim()[1] < 0.02
    assert "2 of 200 scores (1 %) lie above the axis, the highest at 0.5." in notes(figure).replace("\n", " ")


def test_near_outliers_are_shown_in_full():
    # Quartiles .0025 and .0075: the fence is at .015, the axis would end at 1.12 * .0099 and is stretched instead.
    table = layer_scores(1, 100).assign(r=np.linspace(0, 0.01, 100))
    table.loc[99, "r"] = 0.0155
    figure = layer_boxplot(table)
    assert "above the axis" not in notes(figure)
    assert drawn(figure.axes[0], "outliers") == 1
    assert figure.axes[0].get_ylim()[1] > 0.0155


def test_head_axis_turns_logarithmic_only_where_most_boxes_would_be_flat():
    even = head_scores([4, 4])
    assert head_boxplot(even).axes[0].get_yscale() == "linear"
    flat = even.assign(r=even["r"] * np.where((even["layer"] == 0) & (even["head"] == 0), 1, 0.01))
    assert head_boxplot(flat).axes[0].get_yscale() == "symlog"
    assert "Logarithmic axis" in notes(head_boxplot(flat))
    assert head_boxplot(flat, scale="linear").axes[0].get_yscale() == "linear"


def test_stages_are_named_and_must_be_complete():
    figure = layer_boxplot(layer_scores(4, 20), stages={0: 0, 1: 0, 2: 1, 3: 1})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"stage 0", "stage 1"} <= set(texts)
    with pytest.raises(ValueError, match=r"missing: \[2, 3\]"):
        head_boxplot(head_scores([2] * 4), stages={0: 0, 1: 0})


def test_constant_zero_scores_can_be_drawn():
    for scale in ("linear", "symlog"):
        (axes,) = layer_boxplot(layer_scores(2, 5).assign(r=0.0), scale=scale).axes
        assert drawn(axes, "boxes") == 2


@pytest.mark.parametrize(
    ("plot", "table", "message"),
    [
        (layer_boxplot, head_scores([2]), "Use head_boxplot"),
        (layer_boxplot_interactive, head_scores([2]), "Use head_boxplot"),
        (head_boxplot, layer_scores(2, 3), "Use layer_boxplot"),
        (head_boxplot_interactive, layer_scores(2, 3), "Use layer_boxplot"),
        (layer_boxplot, layer_scores(2, 3).iloc[:0], "no rows"),
        (head_boxplot, head_scores([2]).assign(r=np.nan), "finite"),
    ],
)
def test_wrong_tables_are_refused(plot, table, message):
    with pytest.raises(ValueError, match=message):
        plot(table)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="auto, linear, symlog; got 'log'"):
        layer_boxplot(layer_scores(1, 3), scale="log")  # type: ignore[arg-type]


def test_payload_stays_small_for_many_samples(tmp_path):
    table = layer_scores(8, 50_000)
    figure = layer_boxplot(table)
    assert drawn(figure.axes[0], "outliers") <= MOST_DOTS + 8
    assert "one in " in notes(figure)
    _, svg = save_figure(figure, tmp_path, "layers")
    assert svg.stat().st_size < 1_500_000
    assert len(layer_boxplot_interactive(table).to_json()) < 200_000


def test_payload_stays_small_for_many_heads(tmp_path):
    table = head_scores([12] * 12, ("temporal", "spatial"), samples=40)
    assert len(head_boxplot_interactive(table).to_json()) < 200_000


def test_interactive_boxes_carry_statistics_and_no_samples():
    table = head_scores([2, 3], ("temporal", "spatial"))
    figure = head_boxplot_interactive(table)
    temporal, spatial, means = figure.data
    assert (temporal.name, spatial.name, len(temporal.x), len(means.x)) == ("temporal", "spatial", 5, 10)
    assert temporal.y is None
    statistics = unit_statistics(table)
    rows = statistics[statistics["site"] == "temporal"]
    for ours, theirs in (("q1", "q25"), ("median", "median"), ("q3", "q75"), ("mean", "mean")):
        np.testing.assert_allclose(temporal[ours], rows[theirs], rtol=1e-4)  # five digits are kept
    for ours, theirs in (("lowerfence", "whisker_low"), ("upperfence", "whisker_high")):
        np.testing.assert_allclose(temporal[ours], rows[theirs], rtol=1e-4)
    assert means.customdata[0][0] == "layer 0, temporal head 0"
    # Arrays packed as base64 cannot be read by older viewers, among them W&B's.
    assert "bdata" not in figure.to_json()
    assert json.loads(figure.to_json())["layout"]["xaxis"]["ticktext"] == ["0", "1"]


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_file_and_page_draw_the_same_boxes_on_the_same_axis(scale):
    table = head_scores([3, 4], samples=60)
    table["r"] = table["r"] ** 6  # skewed, with means far above the medians
    (axes,) = head_boxplot(table, scale=scale).axes
    page = head_boxplot_interactive(table, scale=scale)
    boxes, means = page.data[0], page.data[-1]

    def heights(values):  # where matplotlib puts them, in units of its axis
        return axes.transScale.transform(np.column_stack([np.zeros(len(values)), values]))[:, 1]

    corners = next(item for item in axes.collections if item.get_gid() == "boxes").get_paths()
    medians = next(item for item in axes.collections if item.get_gid() == "medians").get_segments()
    np.testing.assert_allclose(boxes.q1, heights([path.vertices[:, 1].min() for path in corners]), rtol=1e-4)
    np.testing.assert_allclose(boxes.q3, heights([path.vertices[:, 1].max() for path in corners]), rtol=1e-4)
    np.testing.assert_allclose(boxes.median, heights([segment[0, 1] for segment in medians]), rtol=1e-4)
    drawn_means = next(line for line in axes.lines if line.get_gid() == "means").get_ydata()
    np.testing.assert_allclose(means.y, heights(drawn_means), rtol=1e-4)
    ends = {segment[0, 1] for item in axes.collections if item.get_gid() is None and hasattr(item, "get_segments")
            for segment in item.get_segments()}  # fmt: skip
    for whiskers in (boxes.lowerfence, boxes.upperfence):
        assert all(np.isclose(heights(sorted(ends)), end, rtol=1e-4).any() for end in whiskers)
    np.testing.assert_allclose(page.layout.yaxis.range[1], heights([axes.get_ylim()[1]])[0], rtol=1e-4)
    # What pointing at a box tells are the values, not the places.
    np.testing.assert_allclose([row[7] for row in means.customdata], drawn_means, rtol=1e-4)
    if scale == "symlog":
        named = dict(zip(page.layout.yaxis.ticktext, page.layout.yaxis.tickvals, strict=True))
        np.testing.assert_allclose(heights([0.0, 0.1, 1.0]), [named[text] for text in ("0", "0.1", "1")], atol=1e-6)
    assert BOX_MEANING in notes(head_boxplot(table, scale=scale)).replace("\n", " ")


def test_drawing_leaves_no_global_state():
    before = dict(matplotlib.rcParams)
    layer_boxplot(layer_scores(2, 10))
    head_boxplot(head_scores([2]))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_saved_figures_are_whole_repeatable_and_leave_nothing_behind(tmp_path):
    folders = tmp_path / "new" / "a", tmp_path / "b"
    for folder in folders:
        paths = save_figure(layer_boxplot(layer_scores(2, 10)), folder, "layers")
        assert sorted(folder.iterdir()) == sorted(paths) == [folder / "layers.png", folder / "layers.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(paths[1])
    for name in ("layers.png", "layers.svg"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    figure = layer_boxplot(layer_scores(2, 10))
    (tmp_path / "layers.png").write_bytes(b"old")

    def fail(path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, tmp_path, "layers")
    assert [path.name for path in tmp_path.iterdir()] == ["layers.png"]
    assert (tmp_path / "layers.png").read_bytes() == b"old"


def test_a_stem_with_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plain file name"):
        save_figure(layer_boxplot(layer_scores(1, 3)), tmp_path, "../layers")
