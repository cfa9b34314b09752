"""The section on token reductions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sightline.report.page.blocks import Chart, Folded, Missing, Table, Text
from sightline.report.page.tokens_section import tokens_section
from sightline.report.stored.run_results import RunResults
from sightline.report.tables.tokens import token_table, tokens_by
from sightline.run.csv_table import write_table
from sightline.tokens import REDUCERS, KeepRandom
from tests.sightline.report.tables.test_tokens import example
from tests.sightline.report.verdict.examples import LABELS


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    (tmp_path / "config.yaml").write_text("model: {}\ndata: {}\ntrainer: {}\n")
    (tmp_path / "tables").mkdir()
    return RunResults(tmp_path)


def test_what_is_not_there_names_the_command(run):
    (block,) = tokens_section(run).blocks
    assert isinstance(block, Missing)
    assert block.command == f"python train.py tokens --run {run.folder}"


def test_it_says_first_what_beats_random_dropping(run, monkeypatch):
    monkeypatch.setitem(REDUCERS, "good", KeepRandom)
    monkeypatch.setitem(REDUCERS, "same", KeepRandom)
    frame = token_table(*example())
    write_table(frame, run.paths.table("tokens"))
    for plan_id, found in example()[2].items():
        write_table(found, run.paths.token_predictions / f"{plan_id}.csv")
    class_of = {f"clip{i}": f"class <{label}>" for i, label in enumerate(LABELS)}
    by_class = tokens_by(frame, run.paths.token_predictions, class_of, "class")
    write_table(by_class, run.paths.table("tokens_by_class"))
    better, same, table, cost, speed, classes = tokens_section(run).blocks
    assert isinstance(better, Text)
    assert better.text.startswith("good: better than random dropping at 50 %")
    assert isinstance(same, Text)
    assert same.text == "same: not told apart from random dropping at 50 %."
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["all", "random (2 draws)", "good", "same"]
    assert table.strong == {0}
    assert "good layer=1 cannot keep 20 %" in table.caption
    for block, title in ((cost, "Accuracy against multiply-adds"), (speed, "Accuracy against speed")):
        assert isinstance(block, Chart)
        assert block.title == title
        names = [trace.get("name") for trace in block.figure["data"] if trace.get("showlegend") is not False]
        assert names == ["random (2 draws)", "good", "same", "all tokens, unpruned"]
    assert isinstance(classes, Folded)
    (worst,) = classes.blocks
    # Of good: class 0 loses 34 - 32 of 40 clips, class 1 33 - 32, class 2 33 - 31.
    good = [row for row in worst.rows if row[0] == "good"]
    assert [(row[2], row[5]) for row in good] == [
        ("class <0>", "\N{MINUS SIGN}5.0"),
        ("class <2>", "\N{MINUS SIGN}5.0"),
        ("class <1>", "\N{MINUS SIGN}2.5"),
    ]


def test_a_table_of_another_version_is_refused(run):
    write_table(pd.DataFrame({"method": ["all"]}), run.paths.table("tokens"))
    with pytest.raises(ValueError, match=r"Write it again with `train.py tokens`"):
        tokens_section(run)
