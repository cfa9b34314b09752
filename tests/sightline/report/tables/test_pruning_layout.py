"""The table of tested models in the terminal and in Markdown."""

from __future__ import annotations

import dataclasses

import pandas as pd
from rich.console import Console

from sightline.report.tables.pruning import read_pruning_table, write_pruning_table
from sightline.report.tables.pruning_layout import plan_label, pruning_table_markdown, render_pruning_table
from tests.sightline.report.tables.test_pruning import BOTH, FULL, HEADS, LAYERS, TOKENS


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
    assert lines[2].endswith("| 20.5 | 51.2 |")
    assert lines[0].endswith("| ms at batch 1 (IQR) | clips/s at batch 8 (IQR) |")
    assert "| 3-5 20 | 81.0 (77.6-84.0) |" in lines[3]


def test_a_baseline_s_own_score_is_no_second_score(tmp_path):
    baseline = dataclasses.replace(LAYERS, plan_id="b", method="block_influence", score="cosine")
    write_pruning_table([FULL, LAYERS, baseline], tmp_path / "pruning.csv")
    text = rendered(read_pruning_table(tmp_path / "pruning.csv"), 100)
    assert text.splitlines()[0].rstrip().endswith("video_swin_s, score r")
    assert "block_influence" in text
    assert "cosine" not in text
    assert "…" not in text
    assert "block_influence cosine" in pruning_table_markdown(read_pruning_table(tmp_path / "pruning.csv"))


def test_tokens_and_formats_stand_in_the_plan_s_label(tmp_path):
    write_pruning_table([FULL, TOKENS, BOTH, dataclasses.replace(FULL, runtime="onnx")], tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    labels = [plan_label(row) for row in frame.itertuples(index=False)]
    both = "one_shot r + tokens random + int8 + onnx"
    assert labels == ["unpruned", "tokens random", both, "unpruned + onnx"]
    assert "…" not in rendered(frame, 100)
    lines = pruning_table_markdown(frame).splitlines()
    assert " tokens kept % " in lines[0]
    assert "| tokens random | reduced | 0 |" in lines[3]


def test_times_of_several_runs_are_told_apart(tmp_path):
    new = [dataclasses.replace(row, timing_run="today") for row in (FULL, LAYERS)]
    write_pruning_table([*new, TOKENS], tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    assert "several runs" not in pruning_table_markdown(frame) + rendered(frame, 100)
    old = dataclasses.replace(LAYERS, plan_id="old", clips_per_s=60.0, timing_run=None)
    untimed = dataclasses.replace(LAYERS, plan_id="untimed", timing_run=None)
    write_pruning_table([*new, old, untimed], tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    shown, written = rendered(frame, 100), pruning_table_markdown(frame)
    for text in (shown, written):
        assert "compare only those of one: [1] today, [2] by an earlier version." in " ".join(text.split())
    assert "51.2 [1]" in shown
    assert "60.0 [2]" in shown
    assert "20.5 [1]" in written


def test_one_measurement_of_time_is_told_once(tmp_path):
    timed = [dataclasses.replace(row, clips_per_s=10.0, timing_run="today on CPU, 2 threads") for row in (FULL, LAYERS)]
    write_pruning_table(timed, tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    for text in (rendered(frame, 110), pruning_table_markdown(frame)):
        assert text.count("Times were measured today on CPU, 2 threads.") == 1
        assert "[1]" not in text


def test_few_subjects_are_told_once_under_the_table(tmp_path):
    told = "3 subjects: the interval is over clips and too narrow for new subjects."
    rows = [dataclasses.replace(row, subjects=3, interval_over="clips") for row in (FULL, LAYERS)]
    write_pruning_table(rows, tmp_path / "few.csv")
    few = read_pruning_table(tmp_path / "few.csv")
    assert " ".join(rendered(few, 110).split()).count(told) == 1
    assert pruning_table_markdown(few).count(told) == 1
    for others in ({"subjects": 14, "interval_over": "subjects"}, {"subjects": None, "interval_over": "clips"}, {}):
        old = {"subjects": None, "interval_over": None}
        write_pruning_table([dataclasses.replace(row, **(others or old)) for row in rows], tmp_path / "others.csv")
        frame = read_pruning_table(tmp_path / "others.csv")
        assert "too narrow" not in rendered(frame, 110) + pruning_table_markdown(frame)


def test_the_spread_of_repeats_stands_beside_times_and_other_work_is_told(tmp_path):
    quiet = [
        dataclasses.replace(row, latency_iqr_ms_b1=0.4, clips_per_s_iqr=1.6, timing_waited_pct=0.3)
        for row in (FULL, LAYERS)
    ]
    write_pruning_table(quiet, tmp_path / "pruning.csv")
    frame = read_pruning_table(tmp_path / "pruning.csv")
    shown, written = rendered(frame, 110), pruning_table_markdown(frame)
    assert "51.2 (1.6)" in shown
    assert "clips/s (IQR)" in shown
    assert "| 20.5 (0.4) | 51.2 (1.6) |" in written
    assert "clips/s at batch 8 (IQR)" in written
    assert "other work" not in shown + written

    waited = [dataclasses.replace(row, timing_waited_pct=31.4) for row in quiet]
    write_pruning_table(waited, tmp_path / "pruning.csv")
    told = pruning_table_markdown(read_pruning_table(tmp_path / "pruning.csv"))
    assert "Timed beside other work: 31 % of the time went by waiting for a core. `train.py prune`" in told

    unsteady = [dataclasses.replace(quiet[0], latency_iqr_ms_b1=10.25), quiet[1]]  # half of 20.5
    write_pruning_table(unsteady, tmp_path / "pruning.csv")
    told = rendered(read_pruning_table(tmp_path / "pruning.csv"), 110)
    assert "Timed beside other work: repeats of one model vary by 50 %." in " ".join(told.split())
