"""CSV files run nothing in a spreadsheet, and are read back as they were."""

import ast
import csv
import re
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given

from sightline.run.csv_table import escaped, read_rows, read_table, unescaped, write_rows, write_table

ROOT = Path(__file__).resolve().parents[3]
FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "=",
    "-",
    "'=1",
    "''@x",
    "+-1",
    "-steering",
]
PLAIN = ["steering", "", "a=b", "'", "'quoted'", "-5", "+1.5e-3", "-.5", "3-4", "subject 1", "-inf", "'5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_text(text):
    assert escaped(text) == f"'{text}"
    assert unescaped(escaped(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_and_numbers_stay(text):
    assert escaped(text) == text == unescaped(text)


@pytest.mark.parametrize("value", [-5, -0.25, None, True])
def test_what_is_no_text_stays(value):
    assert escaped(value) is value


@given(st.text(alphabet="'=+-@\t1a.e ", max_size=6))
def test_every_text_comes_back(text):
    assert unescaped(escaped(text)) == text
    assert not re.match(r"[=@\t]", escaped(text))


def test_tables_come_back(tmp_path):
    table = pd.DataFrame(
        {"=name": FORMULAS[:4], "n": [1, -2, 3, -4], "x": [0.5, -0.25, 1e-7, -3.0], "@s": list("abcd")}
    )
    write_table(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["'=name", "n", "x", "'@s"]
    assert rows[2] == ["'+cmd|' /C calc'!A0", "-2", "-0.25", "b"]
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)
    assert table.iloc[0, 0] == "=1+1"  # writing changes nothing


def test_categories_and_the_index_are_escaped_too(tmp_path):
    names = ["=a", "b"]
    counts = pd.DataFrame([[1, 2], [3, 4]], index=pd.Index(names, name="true"), columns=names)
    write_table(counts, tmp_path / "confusion.csv", index=True)
    assert (tmp_path / "confusion.csv").read_text().splitlines() == ["true,'=a,b", "'=a,1,2", "b,3,4"]
    found = read_table(tmp_path / "confusion.csv", index_col=0)
    assert found.index.tolist() == found.columns.tolist() == names
    write_table(pd.DataFrame({"c": pd.Categorical(names)}), tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().splitlines() == ["c", "'=a", "b"]


def test_rows_come_back(tmp_path):
    write_rows(tmp_path / "r.csv", ["name", "k"], [["=x", -1], ["a, b", 2]])
    assert (tmp_path / "r.csv").read_text() == 'name,k\n\'=x,-1\n"a, b",2\n'
    assert read_rows(tmp_path / "r.csv") == [{"name": "=x", "k": "-1"}, {"name": "a, b", "k": "2"}]


def test_all_tables_are_written_here():
    """What writes or reads a table by other means would write formulas, or read apostrophes."""
    readers_of_others = {"video/boxes.py", "driver_clips.py", "drive_and_act.py", "cabin/files.py", "run/csv_table.py"}
    found = []
    for top in ("sightline", "callbacks", "datamodules", "lightning_modules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if any(path.as_posix().endswith(f"/{name}") for name in readers_of_others):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("to_csv", "read_csv"):
                    found.append(f"{path}:{node.lineno}")
                if isinstance(node, ast.Import) and any(alias.name == "csv" for alias in node.names):
                    found.append(f"{path}:{node.lineno}")
    assert not found, f"Use sightline.run.csv_table instead: {found}"


def test_names_that_are_no_utf8_come_back(tmp_path):
    names = ["caf\udce9.avi", "=\udcff", "plain"]
    write_rows(tmp_path / "r.csv", ["name"], [[name] for name in names])
    assert [row["name"] for row in read_rows(tmp_path / "r.csv")] == names
    # A table, such as the report shows, has them as they are written.
    assert read_table(tmp_path / "r.csv")["name"].tolist() == [r"caf\udce9.avi", r"=\udcff", "plain"]
