"""Figures in the pages are those of the files under docs/results/."""

import json
import re

import pandas as pd
import pytest

from benchmarks.result_files import NEEDED, RESULTS, comparison_tables, read_result, write_result
from benchmarks.write_results import PAGES, figure, made_anew, table

FILES = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_what_the_files_say(page):
    text = page.read_text(encoding="utf-8")
    assert made_anew(text) == text, "Renew the pages with `python -m benchmarks.write_results`."


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_whole_and_shown(path):
    content = read_result(path.stem)
    assert content["command"].startswith("python benchmarks/")
    assert not re.search(r"/(home|tmp|root|work)/", path.read_text()), "a path of somebody's machine"
    assert any(re.search(rf"<!--(=| results: \S+) {path.stem} ", page.read_text()) for page in PAGES)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/benchmarks/forward.py", "--batch", "2", "--results", "x.json"])
    monkeypatch.setattr("benchmarks.result_files.waited_pct", lambda before, after: 1.5)
    row = {
        "backbone": "mvit", "reference": "torchvision", "batch": 2, "s_per_clip": 1.234, "reference_s_per_clip": 2.0,
        "times_faster": 1.6207, "lowest": 1.5, "highest": 1.75, "largest_difference": 3.1e-7,
    }  # fmt: skip
    write_result(
        tmp_path / "speed.json", pd.DataFrame([row, {**row, "backbone": "vit", "lowest": float("nan")}]), note=5
    )
    return tmp_path


def test_a_file_says_how_it_came_about(folder):
    content = read_result("speed", folder)
    assert content["command"] == "python benchmarks/forward.py --batch 2"
    assert set(NEEDED) < set(content)
    assert content["versions"]["torch"]
    assert set(content["machine"]) == {"processor", "gpu", "cores", "threads", "waited_pct"}
    assert content["rows"][1]["lowest"] is None
    assert content["note"] == 5


def test_tables_and_figures_are_made_from_the_file(folder):
    page = (
        "Before.\n<!-- results: forward speed -->\nold\n<!-- end of results -->\n"
        "It is <!--= speed rows.0.times_faster .1f -->9<!--/--> times faster; <!--= speed note d -->4<!--/-->.\n"
    )
    made = made_anew(page, folder)
    lines = made.splitlines()
    assert lines[0:2] == ["Before.", "<!-- results: forward speed -->"]
    assert lines[2].startswith("`python benchmarks/forward.py --batch 2` (")
    assert lines[4].startswith("| backbone | reference | clips | ours, s | reference, s | times faster | range |")
    assert lines[5] == "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
    assert lines[6] == "| mvit | torchvision | 2 | 1.23 | 2.00 | 1.62 | 1.50-1.75 | 3e-07 |"
    assert lines[7] == "| vit | torchvision | 2 | 1.23 | 2.00 | 1.62 |  | 3e-07 |"
    assert lines[8] == "<!-- end of results -->"
    assert (
        "It is <!--= speed rows.0.times_faster .1f -->1.6<!--/--> times faster; <!--= speed note d -->5<!--/-->."
        in made
    )
    assert made_anew(made, folder) == made

    content = json.loads((folder / "speed.json").read_text())
    content["rows"][0]["timing_waited_pct"] = 12.3
    told = "Timed beside other work: 12 % of the time went by waiting for a core."
    assert table("forward", content).splitlines()[2] == told
    assert told not in table("forward", read_result("speed", folder))
    content["rows"][0]["times_faster"] = 1.7
    (folder / "speed.json").write_text(json.dumps(content))
    assert made_anew(made, folder) != made


@pytest.mark.parametrize(
    "page",
    ["<!-- results: forward speed -->\nno end\n", "a <!--= speed note -->5<!--/--> b", "<!--= speed note d -->5"],
)
def test_a_mark_that_is_not_closed_is_told(folder, page):
    with pytest.raises(ValueError, match="not closed, or is misspelt"):
        made_anew(page, folder)


def test_a_file_that_is_missing_or_another_is_told(folder):
    with pytest.raises(ValueError, match=r"which is not there\. Run the command"):
        made_anew("<!--= none note d -->5<!--/-->", folder)
    (folder / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no result file: it lacks command"):
        made_anew("<!--= other note d -->5<!--/-->", folder)


def test_layers_say_how_stable_each_seeds_set_is(tmp_path):
    way = {"backbone": "vit", "score": "r", "mode": "lowest"}
    layers = [{**way, "method": "relevance", "k": 1, "removed_by_run": "5 | 1", "agreement": 0.0}]
    layers += [{**way, "method": "greedy", "k": 1, "removed_by_run": "5 | 5", "agreement": 1.0}]
    for name, rows in {"accuracy": [{"top1": 9}], "differences": [{"low": 1}], "removed_layers": layers}.items():
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    runs = [tmp_path / "a", tmp_path / "b"]
    for run, share in zip(runs, (0.52, 0.97), strict=True):
        (run / "tables").mkdir(parents=True)
        pd.DataFrame([{**way, "k": 1, "same_set": share}] * 2).to_csv(run / "tables/stability_train_layers.csv")
        pd.DataFrame([way]).to_csv(run / "tables/pruning.csv")
    tables = comparison_tables(tmp_path, runs)
    assert [row["same_set_by_run"] for row in tables["layers"]] == ["52 | 97", None]
    shown = table("layers", {"command": "c", "date": "d", "commit": "e", "rows": [], **tables, "machine": {
        "gpu": None, "threads": 1, "cores": 2}})  # fmt: skip
    assert "| vit | relevance | lowest | 1 | 5; 1 | 0.00 | 52; 97 |" in shown


def test_figures_are_found_by_their_path():
    content = {"rows": [{"top1": 97.44}, {"top1": 50.0}], "seeds": [0, 1]}
    assert figure(content, "rows.0.top1", ".1f") == "97.4"
    assert figure(content, "seeds.1", "d") == "1"


def test_races_for_the_same_set_stand_side_by_side():
    race = {"table": "heads", "clips": 9500, "mode": "lowest", "k": 2, "orders": 2000}
    saved = {"guaranteed": (1.26, 0), "guaranteed within 0.01": (2.5, 1), "approximate": (5.0, 40)}
    rows = [{**race, "method": method, "saving": s, "wrong": w} for method, (s, w) in saved.items()]
    content = {"command": "c", "date": "d", "commit": "e", "rows": rows, "machine": {
        "gpu": None, "threads": 1, "cores": 2}}  # fmt: skip
    shown = table("racing", content)
    assert "(1 thread on 2 CPU cores, d, commit e)" in shown
    assert shown.splitlines()[-1] == "| heads | 9,500 | lowest 2 | 1.3 | 2.5 | 5.0 | 0; 1; 40 | 2,000 |"


def test_a_reductions_share_of_time_stands_beside_its_limit():
    row = {
        "backbone": "video_swin_s", "frames": 32, "clips": "noise", "batch": 1, "tokens": "sta_r192",
        "share_of_macs": 0.729, "share_of_time": 0.721, "lowest": 0.7, "highest": 0.758, "limit": 0.76,
        "timing_waited_pct": 30.0,
    }  # fmt: skip
    content = {"command": "c", "date": "d", "commit": "e", "rows": [row], "machine": {
        "gpu": None, "threads": 1, "cores": 2, "waited_pct": 0.0}}  # fmt: skip
    shown = table("tokens_speed", content)
    assert shown.splitlines()[-1] == "| video_swin_s | 32 | noise | 1 | sta_r192 | 0.73 | 0.72 (0.70-0.76) | 0.76 |"
    assert "Timed beside other work: 30 %" in shown
