"""Tables, the short table and the figure of attribution methods, from rows made by hand."""

import pandas as pd
import pytest
from rich.console import Console

from sightline.report.figures.attribution import attribution_figure
from sightline.report.tables.attribution import (
    attribution_pairs,
    attribution_table,
    better,
    read_attribution_table,
    write_attribution_tables,
)
from sightline.report.tables.attribution_layout import cells_of, render_attribution

NONE = float("nan")


def rows():
    made = []
    for clip in range(10):
        for method, deletion, light in (("staa", 0.2, 0.5), ("raw", 0.3, 0.1), ("random", 0.4, 0.0)):
            about = {"sample_id": f"c{clip}", "group": f"s{clip}", "method": method}
            # Clips differ alike for all methods, so that pairs have no spread.
            made.append({**about, "metric": "deletion_blur", "value": deletion + 0.01 * clip, "chance": 0.5})
            made.append({**about, "metric": "luminance_correlation", "value": light, "chance": NONE})
            made.append({**about, "metric": "seconds", "value": 0.1, "chance": NONE})
    return pd.DataFrame(made)


def test_means_chance_and_intervals():
    found = attribution_table(rows(), ["random"]).set_index(["method", "metric"])
    staa = found.loc[("staa", "deletion_blur")]
    assert (staa["value"], staa["better"], staa["control"]) == (pytest.approx(0.245), -1, False)
    assert staa["vs_chance"] == pytest.approx(-0.255)
    assert staa["vs_chance_low"] < -0.255 < staa["vs_chance_high"] < 0
    assert (staa["clips"], staa["subjects"], staa["over"]) == (10, 10, "subjects")
    light = found.loc[("staa", "luminance_correlation")]
    assert pd.isna(light["vs_chance"])
    assert light["better"] == 0
    assert found.loc[("random", "deletion_blur"), "control"]


def test_pairs_are_over_the_same_clips():
    found = attribution_pairs(rows())
    assert set(found["metric"]) == {"deletion_blur"}  # costs and what has no good end are left out
    pair = found[(found["method"] == "raw") & (found["other"] == "staa")]
    pair = pair if len(pair) else found[(found["method"] == "staa") & (found["other"] == "raw")]
    assert abs(float(pair["difference"].iloc[0])) == pytest.approx(0.1)
    assert float(pair["high"].iloc[0] - pair["low"].iloc[0]) == pytest.approx(0, abs=1e-9)


def test_missing_values_do_not_count():
    some = rows()
    some.loc[(some["sample_id"] == "c0") & (some["method"] == "staa"), "value"] = NONE
    found = attribution_table(some, []).set_index(["method", "metric"])
    assert found.loc[("staa", "deletion_blur"), "clips"] == 9
    pairs = attribution_pairs(some)
    assert set(pairs["clips"]) == {9, 10}


def test_tables_are_written_and_read(tmp_path):
    paths = write_attribution_tables(rows(), ["random"], tmp_path, "test")
    assert [path.name for path in paths] == ["attribution_test.csv", "attribution_pairs_test.csv"]
    assert read_attribution_table(paths[0])["value"].iloc[0] == pytest.approx(0.245)


def test_the_short_table_ends_with_controls():
    headings, cells = cells_of(attribution_table(rows(), ["random"]))
    assert headings == ["method", "del↓", "light", "s↓"]
    assert [row[0] for row in cells] == ["staa", "raw", "(random)"]
    assert cells[0][1:] == ["-0.26", "0.5", "0.1"]
    console = Console(width=100, record=True)
    console.print(render_attribution(attribution_table(rows(), ["random"])))
    told = console.export_text()
    assert all(word in told for word in ("(random)", "del↓", "-0.26"))
    assert max(map(len, told.splitlines())) <= 100


def test_the_figure_has_a_panel_per_metric():
    figure = attribution_figure(attribution_table(rows(), ["random"]))
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["Deletion (blur) ↓", "Correlation with luminance", "Seconds per clip ↓"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["random", "raw", "staa"]
    with pytest.raises(ValueError, match="nothing to draw"):
        attribution_figure(attribution_table(rows().iloc[:0], []))


def test_which_end_is_good():
    assert [better(name) for name in ("deletion_blur", "insertion_freeze_time", "luminance_correlation")] == [-1, 1, 0]
    assert better("sanity_layer_3") == -1
