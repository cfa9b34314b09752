"""The table of tested models: on disk, in the terminal, in Markdown."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pandas as pd
import pytest
from rich.console import Console

from sightline.report.tables.pruning import (
    COLUMNS,
    PruningRow,
    pruning_rows,
    pruning_table_markdown,
    read_pruning_table,
    render_pruning_table,
    write_pruning_table,
)
from sightline.types import Unit

FULL = PruningRow(
    backbone="video_swin_s", plan_id="unpruned", top1=250 / 3, top1_low=80.1, top1_high=86.2, mean_class_acc=80.0,
    params=49_500_000, params_change_pct=0.0, macs=83_100_000_000, macs_change_pct=0.0, latency_ms_b1=20.5,
    clips_per_s=51.2, batch=8,
)  # fmt: skip
LAYERS = PruningRow(
    backbone="video_swin_s", plan_id="one_shot-r-lowest-k4", method="one_shot", score="r", mode="lowest", k=4,
    removed_layers=(3, 4, 5, 20), top1=81.0, top1_low=77.6, top1_high=84.0, params=43_000_000,
    params_change_pct=-13.1313, macs=72_000_000_000, macs_change_pct=-13.4,
)  # fmt: skip
HEADS = PruningRow(
    backbone="timesformer_b", plan_id="one_shot-jsd-random-k2-seed7", method="one_shot", score="jsd", mode="random",
    k=2, seed=7, removed_heads=(Unit(0, "temporal", 11), Unit(3, "spatial", 1)),
)  # fmt: skip


def test_columns_are_the_design_s():
    design = """
        backbone, plan_id, method, score, mode, k, seed, removed_layers, removed_heads, top1, top1_low, top1_high,
        mean_class_acc, params, params_change_pct, macs, macs_change_pct, latency_ms_b1, clips_per_s, batch
    """
    assert ", ".join(COLUMNS) == " ".join(design.split())


def test_file_is_as_the_design_says(tmp_path):
    write_pruning_table([FULL, HEADS], tmp_path / "tables" / "pruning.csv")
    header, full, heads = (tmp_path / "tables" / "pruning.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert full == (
        "video_swin_s,unpruned,,,none,0,,,,83.33333333333333,80.1,86.2,80.0,49500000,0.0,83100000000,0.0,20.5,51.2,8"
    )
    assert heads == (
        "timesformer_b,one_shot-jsd-random-k2-seed7,one_shot,jsd,random,2,7,,0:temporal:11 3:spatial:1,,,,,,,,,,,"
    )


def test_round_trip_with_empty_fields(tmp_path):
    rows = [FULL, LAYERS, HEADS]
    write_pruning_table(rows, tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    assert pruning_rows(frame) == rows
    assert list(frame.columns) == list(COLUMNS)
    types = frame.dtypes.astype(str)
    assert (types[["seed", "params", "macs", "batch"]] == "Int64").all()
    assert (types["k"], types["top1"], types["clips_per_s"]) == ("int64", "float64", "float64")
    assert frame["removed_layers"].to_list() == ["", "3 4 5 20", ""]
    assert frame["score"].to_list() == ["", "r", "jsd"]
    assert pd.isna(frame["top1"][2])


def test_a_single_removed_layer_stays_text_and_no_rows_keep_their_types(tmp_path):
    row = PruningRow(backbone="nan", plan_id="None", method="greedy", score="r", mode="last", k=1, removed_layers=(7,))
    write_pruning_table([row], tmp_path / "pruning.csv")
    assert pruning_rows(read_pruning_table(tmp_path / "pruning.csv")) == [row]
    write_pruning_table([], tmp_path / "pruning.csv")
    empty = read_pruning_table(tmp_path / "pruning.csv")
    assert (len(empty), str(empty["params"].dtype), str(empty["top1"].dtype)) == (0, "Int64", "float64")


def test_writing_replaces_only_by_a_whole_file(tmp_path):
    path = tmp_path / "pruning.csv"
    write_pruning_table([FULL], path)
    before = path.read_bytes()

    def rows():
        yield LAYERS
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_pruning_table(rows(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_table_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns backbone"):
        read_pruning_table(tmp_path / "other.csv")


@pytest.mark.parametrize(
    "fields",
    [{"mode": "none", "k": 1}, {"mode": "lowest", "k": 0}, {"mode": "none", "k": 0, "removed_layers": (1,)}],
)
def test_contradictory_rows_are_refused(fields):
    with pytest.raises(ValueError, match="unpruned model has mode 'none'"):
        PruningRow(backbone="b", plan_id="p", **fields)


def test_accuracies_are_in_percent():
    with pytest.raises(ValueError, match="top1 is in percent"):
        PruningRow(backbone="b", plan_id="p", top1=101.0)


def rendered(frame: pd.DataFrame, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_pruning_table(frame))
    return console.export_text()


def test_terminal_table_fits_and_is_complete(tmp_path):
    write_pruning_table([FULL, LAYERS], tmp_path / "pruning.csv")
    text = rendered(read_pruning_table(tmp_path / "pruning.csv"), 100)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "video_swin_s" in text.splitlines()[0]
    lowest = next(line for line in text.splitlines() if "lowest" in line)
    for cell in ("one_shot", "4", "3-5 20", "81.0 (77.6-84.0)", "43.0 M (-13.1 %)", "72.0 G (-13.4 %)"):
        assert cell in lowest
    assert "unpruned" in text


def test_terminal_table_names_several_backbones_and_counts_heads(tmp_path):
    write_pruning_table([FULL, LAYERS, HEADS], tmp_path / "pruning.csv")
    text = rendered(read_pruning_table(tmp_path / "pruning.csv"), 110)
    assert "…" not in text
    for part in ("video_swin_s", "timesformer_b", "2 heads", "one_shot jsd #7"):
        assert part in text


def test_markdown_has_a_line_per_model(tmp_path):
    write_pruning_table([FULL, LAYERS, HEADS], tmp_path / "pruning.csv")
    lines = pruning_table_markdown(read_pruning_table(tmp_path / "pruning.csv")).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].endswith("| 20.5 | 51.2 (8) |")
    assert "| 3-5 20 | 81.0 (77.6-84.0) |" in lines[3]


def test_the_room_needs_neither_torch_nor_lightning_nor_wandb():
    code = (
        "import sys, sightline.report.figures.boxplots, sightline.report.tables.pruning, "
        "sightline.report.figures.pruning, sightline.report.figures.confusion; "
        "print(sorted({'torch', 'lightning', 'wandb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_baseline_s_own_score_is_no_second_score(tmp_path):
    baseline = dataclasses.replace(LAYERS, plan_id="b", method="block_influence", score="cosine")
    write_pruning_table([FULL, LAYERS, baseline], tmp_path / "pruning.csv")
    text = rendered(read_pruning_table(tmp_path / "pruning.csv"), 100)
    assert text.splitlines()[0].rstrip().endswith("video_swin_s, score r")
    assert "block_influence" in text
    assert "cosine" not in text
    assert "…" not in text
    assert "block_influence cosine" in pruning_table_markdown(read_pruning_table(tmp_path / "pruning.csv"))
