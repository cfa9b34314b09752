"""The table of token reductions, its averages and what it says, on predictions made by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from rich.console import Console

from sightline.export.token_tests import TokenTest
from sightline.report.tables.pruning import PruningRow
from sightline.report.tables.tokens import (
    ALL_TOKENS,
    COLUMNS,
    CONTROL,
    averaged,
    read_token_table,
    token_table,
    tokens_by,
)
from sightline.report.tables.tokens_layout import (
    control_sentences,
    render_token_table,
    table_notes,
    token_table_markdown,
)
from sightline.run.csv_table import write_table
from sightline.statistics.paired_change import paired_change
from sightline.tokens import REDUCERS, KeepRandom, TokenReduction, asked
from tests.sightline.report.verdict.examples import CLIPS, LABELS, SUBJECTS, predicted

RIGHT = {"all": range(100), "r0": range(60), "r1": range(10, 70), "good": range(95), "same": range(0, 120, 2)}
"""The clips that each model is right on: 100, 60, 60, 95 and 60 of 120."""


@pytest.fixture(autouse=True)
def other_methods(monkeypatch):
    """Two more methods, which only need names here."""
    monkeypatch.setitem(REDUCERS, "good", KeepRandom)
    monkeypatch.setitem(REDUCERS, "same", KeepRandom)


def made(name: str, kept: float, share: float, **options) -> TokenTest:
    return TokenTest(TokenReduction.of(name, options), kept, TokenReduction.of(name, {**options, "kept": share}), share)


def row_of(test: TokenTest, macs: int, seconds: float) -> PruningRow:
    plan = test.plan
    return PruningRow(
        backbone="demo", plan_id=plan.plan_id, method=plan.method, score=plan.score, mode=plan.mode,
        tokens=test.tokens and test.tokens.label, top1=50.0, top1_low=41.0, top1_high=59.0, mean_class_acc=50.0,
        params=10, macs=macs, macs_change_pct=macs / 10 - 100, latency_ms_b1=1000 * seconds, clips_per_s=2 / seconds,
        batch=8, timing_run="now", subjects=12, interval_over="subjects",
    )  # fmt: skip


def example() -> tuple[list[TokenTest], dict[str, PruningRow], dict[str, pd.DataFrame]]:
    tests = [
        TokenTest(), made("random", 0.5, 0.51), made("random", 0.5, 0.51, seed=1), made("good", 0.5, 0.52),
        made("good", 0.2, 0.4, layer=1), made("same", 0.5, 0.5),
    ]  # fmt: skip
    reached = [tests[0], tests[1], tests[2], tests[3], tests[5]]
    rows = {test.plan.plan_id: row_of(test, 1000 - 100 * n, 0.5 / (n + 1)) for n, test in enumerate(reached)}
    found = {test.plan.plan_id: predicted(RIGHT[name]) for test, name in zip(reached, RIGHT, strict=True)}
    return tests, rows, found


@pytest.fixture
def table() -> pd.DataFrame:
    return token_table(*example())


def test_a_row_per_test_with_differences_by_hand(table):
    assert tuple(table) == COLUMNS
    assert table["method"].tolist() == [ALL_TOKENS, "random", "random", "good", "good", "same"]
    assert table["seed"].fillna(-1).tolist() == [-1, 0, 1, -1, -1, -1]
    assert table["options"].tolist() == ["", "", "", "", "layer=1", ""]
    assert table["kept_pct"].tolist() == [100, 51, 51, 52, 40, 50]
    # 95 of 120 right against 100 with all tokens, and against 60 of either draw.
    good = table.iloc[3]
    assert good["change"] == pytest.approx(-100 * 5 / 120)
    assert good["vs_random"] == pytest.approx(100 * 35 / 120)
    # Right minus the mean of the draws: both, the first alone, the second alone, or neither is right.
    draws = [((i < 60) + (10 <= i < 70)) / 2 for i in range(CLIPS)]
    wanted = paired_change([(i < 95) - draw for i, draw in enumerate(draws)], SUBJECTS)
    assert (good["vs_random_low"], good["vs_random_high"]) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    assert wanted.over == "subjects"
    assert table["vs_random"].isna().tolist() == [True, True, True, False, True, False]
    assert good["clips_per_s_b1"] == pytest.approx(1000 / good["latency_ms_b1"])


def test_the_control_is_the_one_that_is_drawn():
    assert CONTROL == asked.CONTROL
    assert [method.options for method in asked.with_draws(TokenReduction.of(CONTROL), 2)] == [(), (("seed", 1),)]


def test_a_share_that_was_not_reached_has_no_results(table):
    row = table.iloc[4]
    assert row[["top1", "macs", "clips_per_s", "change", "timing_waited_pct"]].isna().all()
    assert row["tokens"] == "good_kept0.4_layer1"
    assert "good layer=1 cannot keep 20 % of the tokens of this model: the nearest is 40.0 %. Not tested." in (
        table_notes(table)
    )


def test_shares_that_were_not_reached_are_told_together():
    tests, rows, predictions = example()
    tests += [made("good", 0.1, 0.4, layer=1), made("same", 0.2, 0.4, layer=1), made("same", 0.1, 0.4, layer=1)]
    tests += [made("same", 0.2, 0.3)]
    told = [note for note in table_notes(token_table(tests, rows, predictions)) if "cannot" in note]
    assert told == [
        "good layer=1, same layer=1 cannot keep 20 % or 10 % of the tokens of this model: the nearest is 40.0 %. "
        "Not tested.",
        "same cannot keep 20 % of the tokens of this model: the nearest is 30.0 %. Not tested.",
    ]


def test_what_is_read_is_what_was_written(table, tmp_path):
    write_table(table, tmp_path / "tokens.csv")
    pd.testing.assert_frame_equal(read_token_table(tmp_path / "tokens.csv"), table)
    write_table(table.drop(columns="vs_random"), tmp_path / "old.csv")
    with pytest.raises(ValueError, match=r"lacks the columns vs_random. Write it again with `train.py tokens`"):
        read_token_table(tmp_path / "old.csv")


def test_draws_are_averaged_and_others_stay(table):
    table.loc[1, "top1"], table.loc[2, "top1"] = 40.0, 46.0
    rows = averaged(table)
    assert rows["draws"].tolist() == [1, 2, 1, 1]
    assert rows.loc[1, ["top1", "low", "high", "macs"]].tolist() == [43.0, 40.0, 46.0, 850.0]
    assert rows.loc[2, ["low", "high"]].tolist() == [41.0, 59.0]


def test_it_says_plainly_what_beats_the_control(table):
    better, same, *more = control_sentences(table)
    good = table.iloc[3]
    ends = f"+{good['vs_random_low']:.1f} to +{good['vs_random_high']:.1f}"
    assert better == f"good: better than random dropping at 50 % (+29.2 points, 95 %: {ends})."
    # Every other clip is right, as are half of the draws' on average: 60 of 120 each.
    assert same == "same: not told apart from random dropping at 50 %."
    assert more == []  # two intervals
    table.loc[5, ["vs_random", "vs_random_low", "vs_random_high"]] = [-3.0, -4.0, -2.0]
    assert control_sentences(table)[1] == (
        "same: worse than random dropping at 50 % (\N{MINUS SIGN}3.0 points, 95 %: \N{MINUS SIGN}4.0 to "
        "\N{MINUS SIGN}2.0)."
    )
    assert control_sentences(table[table["method"] != "good"].assign(vs_random=float("nan"))) == []


def test_many_intervals_come_with_a_warning(table):
    rows = [table.iloc[[3]].assign(kept_asked_pct=share) for share in range(10, 60, 4)]
    told = control_sentences(pd.concat(rows))
    assert told[-1] == "Of 13 intervals of 95 %, about 1 excludes 0 by chance."
    told = control_sentences(pd.concat([table.iloc[[3]].assign(kept_asked_pct=share) for share in range(10, 50)]))
    assert told[-1] == "Of 40 intervals of 95 %, about 2 exclude 0 by chance."


def test_the_table_fits_a_terminal_of_100_columns(table):
    console = Console(width=100, record=True)
    console.print(render_token_table(table.assign(macs=180_500_000_000, latency_ms_b1=1812.3, clips_per_s=123.4)))
    text = console.export_text()
    assert "random (2 draws)" in text
    assert f"{table.iloc[3]['vs_random']:+.1f}" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text  # nothing was cut off
    assert "random: mean of 2 draws" in text
    markdown = token_table_markdown(table)
    assert "| good | 52.0 (50) | 50.0 (41.0-59.0) |" in markdown
    assert "better than random dropping" in markdown


def test_classes_and_subjects_by_hand(table, tmp_path):
    _, _, predictions = example()
    for plan_id, found in predictions.items():
        write_table(found, tmp_path / f"{plan_id}.csv")
    class_of = {f"clip{i}": f"class {label}" for i, label in enumerate(LABELS)}
    by_class = tokens_by(table, tmp_path, class_of, "class").set_index(["plan_id", "class"])
    good = table.iloc[3]["plan_id"]
    # Of the 40 clips of class 0 (places 0, 3, ...), 34 lie below 100 and 32 below 95.
    assert by_class.loc[(good, "class 0"), ["clips", "top1", "change"]].tolist() == pytest.approx([40, 80.0, -5.0])
    assert len(by_class) == 5 * 3
    by_subject = tokens_by(table, tmp_path, class_of, "group")
    assert len(by_subject) == 5 * 12
    assert by_subject.groupby("plan_id")["clips"].sum().unique().tolist() == [CLIPS]
    (tmp_path / f"{good}.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"Run train.py tokens again"):
        tokens_by(table, tmp_path, class_of, "class")
