"""The table of tested models: on disk, in the terminal, in Markdown."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pandas as pd
import pytest

from sightline.pruning.plan import FORMATS
from sightline.report.tables.pruning import (
    COLUMNS,
    FORMAT,
    PruningRow,
    in_order,
    layers_and_heads_alone,
    pruning_rows,
    read_pruning_table,
    reference_rows,
    write_pruning_table,
)
from sightline.types import Unit

FULL = PruningRow(
    backbone="video_swin_s", plan_id="unpruned", top1=250 / 3, top1_low=80.1, top1_high=86.2, mean_class_acc=80.0,
    params=49_500_000, params_change_pct=0.0, macs=83_100_000_000, macs_change_pct=0.0, latency_ms_b1=20.5,
    clips_per_s=51.2, batch=8, subjects=14, interval_over="subjects",
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
TOKENS = PruningRow(
    backbone="video_swin_s", plan_id="tokens-none-reduced-k0-random", method="tokens", score="none", mode="reduced",
    top1=82.0, macs=50_000_000_000, macs_change_pct=-39.8, tokens="random", tokens_kept_pct=50.0, clips_per_s=70.5,
    batch=8, timing_run="today",
)  # fmt: skip
BOTH = dataclasses.replace(
    LAYERS, plan_id=f"{LAYERS.plan_id}-random-int8", tokens="random", tokens_kept_pct=50.0, format="int8",
    runtime="onnx",
)  # fmt: skip


def test_columns_are_the_design_s():
    design = """
        backbone, plan_id, method, score, mode, k, seed, removed_layers, removed_heads, top1, top1_low, top1_high,
        mean_class_acc, params, params_change_pct, macs, macs_change_pct, latency_ms_b1, clips_per_s, batch, tokens,
        tokens_kept_pct, format, runtime, timing_run, latency_iqr_ms_b1, clips_per_s_iqr, timing_waited_pct, subjects,
        interval_over
    """
    assert ", ".join(COLUMNS) == " ".join(design.split())


def test_file_is_as_the_design_says(tmp_path):
    write_pruning_table([FULL, HEADS], tmp_path / "tables" / "pruning.csv")
    header, full, heads = (tmp_path / "tables" / "pruning.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert full == (
        "video_swin_s,unpruned,,,none,0,,,,83.33333333333333,80.1,86.2,80.0,49500000,0.0,83100000000,0.0,20.5,51.2,8"
        ",,,fp32,pytorch,,,,,14,subjects"
    )
    assert heads == (
        "timesformer_b,one_shot-jsd-random-k2-seed7,one_shot,jsd,random,2,7,,0:temporal:11 3:spatial:1"
        ",,,,,,,,,,,,,,fp32,pytorch,,,,,,"
    )


def test_round_trip_with_empty_fields(tmp_path):
    rows = [FULL, LAYERS, HEADS, TOKENS, BOTH]
    write_pruning_table(rows, tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    assert pruning_rows(frame) == rows
    assert list(frame.columns) == list(COLUMNS)
    types = frame.dtypes.astype(str)
    assert (types[["seed", "params", "macs", "batch"]] == "Int64").all()
    assert (types["k"], types["top1"], types["clips_per_s"]) == ("int64", "float64", "float64")
    assert frame["removed_layers"].to_list() == ["", "3 4 5 20", "", "", "3 4 5 20"]
    assert frame["score"].to_list() == ["", "r", "jsd", "none", "r"]
    assert pd.isna(frame["top1"][2])


def test_rows_come_in_one_order_whenever_they_were_measured():
    def row(method, score, mode, k, **more):
        return dataclasses.replace(
            LAYERS, method=method, score=score, mode=mode, k=k, removed_layers=tuple(range(k)),
            plan_id=f"{method}-{score}-{mode}-{k}-{more}", **more,
        )  # fmt: skip

    wanted = [
        dataclasses.replace(FULL, backbone=LAYERS.backbone),
        row("relevance", "r", "lowest", 1),
        row("relevance", "r", "lowest", 10),
        row("relevance", "r", "highest", 1),
        row("relevance", "jsd", "lowest", 1),
        row("greedy", "r", "lowest", 1),
        row("random", "draw", "lowest", 1, seed=0),
        row("random", "draw", "lowest", 1, seed=1),
        row("random", "draw", "lowest", 2, seed=0),
        row("last", "from_end", "lowest", 2),
        row("of_mine", "r", "lowest", 1),
        row("relevance", "r", "lowest", 2, removed_heads=(Unit(3, "spatial", 1),)),
        dataclasses.replace(TOKENS, backbone=LAYERS.backbone),
        row("relevance", "r", "lowest", 1, tokens="random"),
    ]
    assert in_order(reversed(wanted)) == wanted
    assert in_order(wanted[::2] + wanted[1::2]) == wanted


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
    [
        {"mode": "none", "k": 1},
        {"mode": "lowest", "k": 0},
        {"mode": "none", "k": 0, "removed_layers": (1,)},
        {"mode": "none", "tokens": "random"},
        {"mode": "none", "format": "int8"},
        {"mode": "reduced", "tokens": "random", "removed_layers": (1,)},
    ],
)
def test_contradictory_rows_are_refused(fields):
    with pytest.raises(ValueError, match="unpruned model has mode 'none'"):
        PruningRow(backbone="b", plan_id="p", **fields)


@pytest.mark.parametrize("name", ["top1", "tokens_kept_pct"])
def test_shares_are_in_percent(name):
    with pytest.raises(ValueError, match=f"{name} is in percent"):
        PruningRow(backbone="b", plan_id="p", **{name: 101.0})


def test_a_table_of_an_older_version_is_read_as_all_tokens_fp32_and_pytorch(tmp_path):
    full = dataclasses.replace(FULL, subjects=None, interval_over=None)
    write_pruning_table([full, HEADS], tmp_path / "new.csv")
    new = pd.read_csv(tmp_path / "new.csv", dtype=str, keep_default_na=False)
    new[list(COLUMNS[: COLUMNS.index("tokens")])].to_csv(tmp_path / "old.csv", index=False)
    old = read_pruning_table(tmp_path / "old.csv")
    pd.testing.assert_frame_equal(old, read_pruning_table(tmp_path / "new.csv"))
    assert pruning_rows(old) == [full, HEADS]
    new.assign(format="", runtime="").to_csv(tmp_path / "empty.csv", index=False)
    assert pruning_rows(read_pruning_table(tmp_path / "empty.csv")) == [full, HEADS]


def test_the_reference_format_is_that_of_plans():
    assert FORMATS[0] == FORMAT


def test_the_reference_has_all_tokens_fp32_and_pytorch(tmp_path):
    elsewhere = dataclasses.replace(FULL, runtime="onnx")
    write_pruning_table([TOKENS, elsewhere, FULL, LAYERS, BOTH], tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    assert reference_rows(frame).tolist() == [False, False, True, False, False]
    assert layers_and_heads_alone(frame).tolist() == [False, False, True, True, False]


def test_the_room_needs_neither_torch_nor_lightning_nor_wandb():
    code = (
        "import sys, sightline.report.figures.boxplots, sightline.report.tables.pruning_layout, "
        "sightline.report.figures.pruning, sightline.report.figures.confusion; "
        "print(sorted({'torch', 'lightning', 'wandb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
