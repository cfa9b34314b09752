"""Tables over several runs, by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sightline.report.comparison.compare import compare_runs
from sightline.report.comparison.intervals import difference_table
from sightline.report.comparison.runs import read_runs
from sightline.report.comparison.tables import (
    accuracy_table,
    mean_jaccard,
    method_table,
    removed_layers_table,
    score_table,
)
from sightline.report.tables.pruning import PruningRow, write_pruning_table

CLASSES = ("a", "b")


def row(method: str, score: str, mode: str, removed: tuple[int, ...], correct: list[int], **more) -> tuple:
    plan_id = f"{method}-{score}-{mode}-k{len(removed)}" + (f"-seed{more['seed']}" if "seed" in more else "")
    costs = {"params": 100 - 10 * len(removed), "macs": 10**6 * (8 - len(removed)), "clips_per_s": 10.0, "batch": 2}
    told = {"backbone": "swin", "mode": mode, "k": len(removed), "removed_layers": removed, "method": method}
    made = PruningRow(plan_id=plan_id, score=score, top1=100 * np.mean(correct), **{**told, **costs, **more})
    return made, correct


def write_run(folder: Path, tested: list[tuple], subjects: list[str] | None = None) -> Path:
    """A run with four test clips, two of each class, of which each model gets some right."""
    (folder / "tables" / "predictions").mkdir(parents=True)
    write_pruning_table([made for made, _ in tested], folder / "tables" / "pruning.csv")
    count = len(tested[0][1])
    labels = [clip * 2 // count for clip in range(count)]
    group = subjects or [f"s{clip % 2}" for clip in range(count)]
    clips = pd.DataFrame({"sample_id": [f"c{clip}" for clip in range(count)], "label": labels, "group": group})
    clips.assign(label=[CLASSES[label] for label in labels], split="test").to_csv(folder / "splits.csv", index=False)
    for made, correct in tested:
        right = np.array(correct)
        predicted = np.where(right == 1, clips["label"], 1 - clips["label"])
        path = folder / "tables" / "predictions" / f"{made.plan_id}.csv"
        clips.assign(predicted=predicted, p_true=0.5).to_csv(path, index=False)
    return folder


def full(correct: list[int]) -> tuple:
    return row("relevance", "r", "none", (), correct, clips_per_s=5.0)


@pytest.fixture
def two_runs(tmp_path) -> list[str]:
    first = [
        full([1, 1, 1, 1]),
        row("relevance", "r", "lowest", (1, 2), [1, 1, 0, 1]),
        row("relevance", "jsd", "lowest", (1, 3), [1, 0, 0, 1]),
        row("random", "draw", "lowest", (0,), [1, 1, 1, 1], seed=0),
        row("random", "draw", "lowest", (3,), [0, 0, 1, 1], seed=1),
    ]
    second = [
        full([1, 1, 1, 0]),
        row("relevance", "r", "lowest", (2, 3), [1, 0, 0, 0]),
        row("relevance", "jsd", "lowest", (2, 3), [1, 0, 0, 0]),
        row("random", "draw", "lowest", (0,), [0, 0, 0, 0], seed=0),
        row("random", "draw", "lowest", (3,), [0, 0, 0, 1], seed=1),
    ]
    return [str(write_run(tmp_path / name, tested)) for name, tested in (("seed0", first), ("seed1", second))]


def of(table: pd.DataFrame, **key) -> pd.Series:
    for name, value in key.items():
        table = table[table[name] == value]
    (place,) = table.index
    return table.loc[place]


def test_runs_are_averaged_with_their_spread(two_runs):
    table = accuracy_table(read_runs(two_runs))
    pruned = of(table, method="relevance", score="r")
    assert (pruned["runs"], pruned["top1"], pruned["top1_by_run"]) == (2, 50.0, "75.0 25.0")
    assert pruned["top1_sd"] == pytest.approx(50 / 2**0.5)
    assert pruned["change"] == pytest.approx(50 - 87.5)
    # Class a: 100 and 50 from 100 and 100. Class b: 50 and 0 from 100 and 50.
    assert pruned["classes_that_lose_most"] == "b -50.0, a -25.0"
    assert pruned["speedup"] == 2.0
    assert np.isnan(pruned["top1_low"])  # two subjects are too few
    whole = of(table, mode="none")
    assert (whole["method"], whole["top1_by_run"], whole["change"]) == ("", "100.0 75.0", 0.0)


def test_a_run_s_value_of_random_is_the_mean_of_its_draws(two_runs):
    random = of(accuracy_table(read_runs(two_runs)), method="random")
    assert (random["runs"], random["top1_by_run"]) == (2, "75.0 12.5")
    assert random["top1_sd"] == pytest.approx(62.5 / 2**0.5)


def test_methods_stand_side_by_side(two_runs):
    table = method_table(accuracy_table(read_runs(two_runs)))
    assert list(table.columns[2::2]) == ["unpruned", "relevance lowest", "random"]
    assert table["k"].tolist() == [0, 1, 2]
    assert table["unpruned"].tolist()[0] == 87.5
    assert table["random"].tolist()[1] == pytest.approx((75 + 12.5) / 2)
    assert table["relevance lowest"].tolist()[2] == 50.0
    assert table["random sd"].tolist()[1] == pytest.approx(62.5 / 2**0.5)


def over_clips(changed: int, clips: int) -> tuple[float, float]:
    """Bonett and Price's interval of a change of so many clips, all one way, in points: one more each way."""
    centre, square = changed / (clips + 2), (abs(changed) + 2) / (clips + 2)
    half = 1.959964 * math.sqrt((square - centre**2) / (clips + 2))
    return 100 * (centre - half), 100 * (centre + half)


def test_intervals_are_over_the_subjects_of_all_runs(tmp_path):
    """Nine subjects of two clips each: intervals are those of nine values."""
    subjects = [f"s{clip // 2}" for clip in range(18)]
    same = [1, 0] * 9  # one of two clips of every subject
    runs = [
        write_run(tmp_path / name, [full([1] * 18), row("last", "from_end", "lowest", (1,), same)], subjects)
        for name in ("a", "b")
    ]
    table = accuracy_table(read_runs(runs))
    last = of(table, method="last")
    # Subjects do not differ, which leaves Wilson's interval of 36 clips with t of 8 degrees of freedom, 2.306.
    half = 50 * 2.306004 / math.sqrt(36 + 2.306004**2)
    assert (last["subjects"], last["top1_low"], last["top1_high"]) == pytest.approx((9, 50 - half, 50 + half))
    # The same of their changes: what is left is Bonett and Price's interval over 36 clips of which 18 are lost.
    assert (last["change"], last["change_low"], last["change_high"]) == pytest.approx((-50.0, *over_clips(-18, 36)))
    whole = of(table, mode="none")
    assert (whole["change"], whole["change_low"], whole["change_high"]) == (0.0, 0.0, 0.0)  # against itself
    two = [1, 1] * 3 + [0, 0] * 6
    other = write_run(tmp_path / "c", [full([1] * 18), row("last", "from_end", "lowest", (1,), two)], subjects)
    alone = of(accuracy_table(read_runs([other])), method="last")
    # Nine values, three of 1 and six of 0: deviation 1/2, error 1/6, which is that of 8 independent clips.
    # No model loses more than everything.
    assert (alone["change_low"], alone["change_high"]) == pytest.approx((-100, 100 * (-2 / 3 + 2.306004 / 6)))
    assert (alone["top1_low"], alone["top1_high"]) == pytest.approx((9.466, 70.511), abs=1e-3)


def test_sets_agree_as_far_as_they_overlap(two_runs):
    assert mean_jaccard([{1, 2}, {2, 3}, {1, 2}]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert np.isnan(mean_jaccard([{1}]))
    table = removed_layers_table(read_runs(two_runs).models)
    assert list(table["score"]) == ["r", "jsd"]  # random's sets are the same in every run
    by_r = of(table, score="r")
    assert (by_r["removed_by_run"], by_r["removed_in"]) == ("1 2 | 2 3", "2:2 1:1 3:1")
    assert by_r["agreement"] == pytest.approx(1 / 3)


def test_scores_are_compared_within_runs(two_runs):
    (found,) = score_table(read_runs(two_runs).models).to_dict("records")
    assert (found["top1_r"], found["top1_jsd"], found["k"]) == (50.0, 37.5, 2)
    assert found["agreement_jsd_r"] == pytest.approx((1 / 3 + 1) / 2)
    assert score_table(read_runs(two_runs).models.query("score != 'jsd'")).empty


def test_files_and_figure_are_written(two_runs, tmp_path, capsys):
    out = tmp_path / "out"
    compare_runs(two_runs, str(out))
    names = ("accuracy", "differences", "methods", "removed_layers", "scores", "by_class", "by_subject")
    figures = {f"accuracy_against_{axis}.{kind}" for axis in ("cost", "depth") for kind in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == {*(f"{name}.csv" for name in names), "comparison.md", *figures}
    text = (out / "comparison.md").read_text()
    assert "| swin | relevance r | lowest | 2 | 50.0 ± 35.4 | 75.0 25.0 | -37.5 |" in text
    assert "| swin | 2 |  | **50.0 ± 35.4** |  |" in text
    assert text in capsys.readouterr().out
    subjects = pd.read_csv(out / "by_subject.csv").query("plan_id == 'relevance-r-lowest-k2' and run == 'seed0'")
    assert dict(zip(subjects["group"], subjects["change"], strict=True)) == {"s0": -50.0, "s1": 0.0}


def test_bad_runs_are_refused(two_runs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run with tested models: it has no tables/pruning.csv"):
        read_runs([tmp_path])
    with pytest.raises(ValueError, match="given twice"):
        read_runs([two_runs[0], two_runs[0]])
    other = write_run(tmp_path / "other", [full([1, 1, 1, 1])])
    splits = pd.read_csv(other / "splits.csv")
    splits.assign(label="z").to_csv(other / "splits.csv", index=False)
    with pytest.raises(ValueError, match=r"different classes, e\.g\. a"):
        read_runs([two_runs[0], other])
    (Path(two_runs[1]) / "tables/predictions/relevance-r-none-k0.csv").unlink()
    with pytest.raises(FileNotFoundError, match="predictions"):
        read_runs(two_runs)


def test_lowest_relevance_is_set_against_every_other_way(two_runs):
    table = difference_table(read_runs(two_runs))
    jsd = of(table, other_score="jsd")
    # Of all eight test clips lowest r keeps 3 + 1, lowest jsd 2 + 1.
    assert (jsd["k"], jsd["score"], jsd["difference"]) == (2, "r", pytest.approx(12.5))
    assert (jsd["difference_by_run"], jsd["runs_ahead"], jsd["runs"]) == ("+25.0 +0.0", 1, 2)
    assert np.isnan(jsd["low"])  # two subjects are too few
    # Random draws are of k = 1, at which nothing was removed by relevance.
    assert "random" not in set(table["other_method"])


def test_differences_are_paired_within_subjects(tmp_path):
    """Every subject loses the same, though subjects differ greatly: only that there are 36 clips leaves a doubt."""
    subjects = [f"s{clip // 4}" for clip in range(36)]
    low = [clip for s in range(9) for clip in ([1, 1, 1, 0] if s % 2 else [1, 0, 0, 0])]
    high = [clip for s in range(9) for clip in ([1, 1, 0, 0] if s % 2 else [0, 0, 0, 0])]
    tested = [
        full([1] * 36),
        row("relevance", "r", "lowest", (1,), low),
        row("relevance", "r", "highest", (2,), high),
    ]
    run = write_run(tmp_path / "run", tested, subjects)
    found = of(difference_table(read_runs([run])), other_mode="highest")
    assert (found["difference"], found["low"], found["high"]) == pytest.approx((25, *over_clips(9, 36)))
    assert (found["subjects"], found["runs_ahead"]) == (9, 1)


def test_between_the_same_models_there_is_no_difference_and_no_doubt(tmp_path):
    subjects = [f"s{clip // 2}" for clip in range(18)]
    some = [1, 0] * 9
    tested = [
        full([1] * 18),
        row("relevance", "r", "lowest", (1,), some),
        row("greedy", "r", "lowest", (1,), some),
        row("last", "from_end", "lowest", (3,), some),
    ]
    table = difference_table(read_runs([write_run(tmp_path / "run", tested, subjects)]))
    same, other = of(table, other_method="greedy"), of(table, other_method="last")
    assert (same["difference"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    # Other layers that do as well on 18 clips may differ on others.
    assert (other["difference"], other["low"], other["high"]) == pytest.approx((0.0, *over_clips(0, 18)))


def test_the_page_sets_control_and_baselines_against_lowest_relevance(tmp_path, capsys):
    tested = [
        full([1, 1, 1, 1]),
        row("relevance", "r", "lowest", (1,), [1, 1, 1, 0]),
        row("relevance", "r", "highest", (2,), [1, 0, 0, 0]),
        row("relevance", "jsd", "lowest", (3,), [1, 1, 1, 0]),
        row("block_influence", "cosine", "lowest", (3,), [1, 1, 1, 1]),
    ]
    compare_runs([str(write_run(tmp_path / "run", tested))], str(tmp_path / "out"))
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| backbone | k | highest r | block influence |" in page
    assert "| swin | 1 | +50.0; 1 of 1 | -25.0; 0 of 1 |" in page
    assert len(pd.read_csv(tmp_path / "out" / "differences.csv")) == 3


def test_only_runs_that_have_both_are_compared(tmp_path):
    """The first run lacks the baseline and is far worse: it counts neither for the difference nor for the change."""
    bad = [full([1, 0, 0, 0]), row("relevance", "r", "lowest", (1,), [0, 0, 0, 0])]
    good = [
        full([1, 1, 1, 1]),
        row("relevance", "r", "lowest", (1,), [1, 1, 1, 0]),
        row("last", "from_end", "lowest", (3,), [1, 1, 0, 0]),
    ]
    runs = read_runs([write_run(tmp_path / "a", bad), write_run(tmp_path / "b", good)])
    found = of(difference_table(runs), other_method="last")
    assert (found["difference"], found["difference_by_run"], found["runs"]) == (25.0, "+25.0", 1)
    assert of(accuracy_table(runs), method="last")["change"] == -50.0


def tokens(removed: tuple[int, ...], correct: list[int], **more) -> tuple:
    """The model without these layers, and with fewer tokens."""
    names = ("relevance", "r", "lowest") if removed else ("tokens", "none", "reduced")
    plan_id = "-".join([*names, f"k{len(removed)}", "random"])
    made, _ = row(*names, removed, correct, tokens="random", tokens_kept_pct=50.0, **more)
    return dataclasses.replace(made, plan_id=plan_id), correct


@pytest.fixture
def with_tokens(tmp_path) -> str:
    tested = [
        full([1, 1, 1, 1]),
        row("relevance", "r", "lowest", (1, 2), [1, 1, 0, 1]),
        row("relevance", "r", "highest", (0, 3), [1, 0, 0, 0]),
        tokens((), [1, 1, 1, 0]),
        tokens((1, 2), [0, 1, 0, 0]),
    ]
    return str(write_run(tmp_path / "run", tested))


def test_models_with_fewer_tokens_are_ways_of_their_own(with_tokens, tmp_path):
    runs = read_runs([with_tokens])
    table = accuracy_table(runs)
    assert table[["k", "tokens", "top1"]].values.tolist() == [
        [0, "", 100.0], [2, "", 75.0], [2, "", 25.0], [0, "random", 75.0], [2, "random", 25.0],
    ]  # fmt: skip
    assert of(table, tokens="random", k=0)["change"] == -25.0
    assert of(table, tokens="random", k=2)["change"] == -75.0  # against the model with all layers and all tokens
    methods = method_table(table)
    assert list(methods.columns[2::2]) == ["unpruned", "relevance lowest", "relevance highest"]
    assert methods["relevance lowest"].tolist()[1] == 75.0
    assert removed_layers_table(runs.models)["removed_by_run"].tolist() == ["1 2", "0 3"]
    differences = difference_table(runs)
    assert differences[["other_mode", "difference"]].values.tolist() == [["highest", 50.0]]
    compare_runs([with_tokens], str(tmp_path / "out"))
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| swin | relevance r + tokens random | lowest | 2 | 25.0 |" in text
    assert "| swin | tokens random | reduced | 0 | 75.0 |" in text
    classes = pd.read_csv(tmp_path / "out" / "by_class.csv", keep_default_na=False)
    assert classes.query("tokens == 'random' and k == 0 and `class` == 'b'")["change"].astype(float).tolist() == [-50.0]


def test_speeds_carry_the_spread_of_their_repeats_and_other_work(tmp_path, capsys):
    tested = [
        row("relevance", "r", "none", (), [1, 1, 1, 1], clips_per_s=5.0, clips_per_s_iqr=0.2, timing_waited_pct=1.0),
        row("relevance", "r", "lowest", (1,), [1, 1, 0, 1], clips_per_s_iqr=0.3, timing_waited_pct=7.5),
    ]
    out = tmp_path / "out"
    compare_runs([str(write_run(tmp_path / "run", tested))], str(out))
    lowest = of(pd.read_csv(out / "accuracy.csv"), mode="lowest")
    assert lowest["speedup_iqr"] == pytest.approx(2.0 * math.hypot(0.3 / 10, 0.2 / 5))
    assert (lowest["clips_per_s_iqr"], lowest["timing_waited_pct"]) == (0.3, 7.5)
    text = (out / "comparison.md").read_text()
    assert "| 2.00x (0.10) |" in text
    assert "Timed beside other work: 8 % of the time went by waiting for a core. `train.py prune`" in text


def test_speed_of_another_measurement_is_not_set_against_the_unpruned_model_s(tmp_path):
    tested = [
        row("relevance", "r", "none", (), [1, 1, 1, 1], clips_per_s=5.0, timing_run="today"),
        row("relevance", "r", "lowest", (1,), [1, 1, 0, 1], timing_run="today"),
        row("relevance", "r", "lowest", (1, 2), [1, 1, 0, 1], timing_run="yesterday"),
        row("relevance", "r", "lowest", (1, 2, 3), [1, 1, 0, 1]),
    ]
    table = accuracy_table(read_runs([write_run(tmp_path / "run", tested)])).set_index("k")
    assert table.loc[[0, 1], "speedup"].tolist() == [1.0, 2.0]
    assert table.loc[[2, 3], "speedup"].isna().all()
