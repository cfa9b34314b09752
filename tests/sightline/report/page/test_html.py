"""The report's page: that it is whole, safe, self-contained, and says what is missing or wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sightline.report.figures import style
from sightline.report.page import html
from sightline.report.page.html import THEME, write_report
from sightline.report.tables.pruning import pruning_rows, read_pruning_table, write_pruning_table
from sightline.report.verdict.findings import Finding, Grade, Verdict
from tests.sightline.report.comparison.example_runs import make_run

HOSTILE = "<script>alert(\"1\")</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}&lt;b&gt;${x}</style>"


class Page(HTMLParser):
    """A page's elements (tag and names of attributes), addresses, and text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.attributes: list[list[tuple[str, str | None]]] = []
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.data: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.attributes.append(attrs)
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self._inside = tag
        self.text += " "
        if ("type", "application/json") in attrs:
            self.data.append("")
            self._inside = "json"

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "json":
            self.data[-1] += data
        elif self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


def test_all_that_the_run_holds_is_shown(page):
    told = " ".join(page.text.split())
    for words in (
        "Best epoch: 2 of 3, with a validation top-1 of 75.0 %",
        "All 3 layers, the least relevant first.",
        "plain ended early",
        "python train.py fit --data.root plain",
        "75.0 to 85.0",
        "0.50 0.12 0.10 to 0.20 75 10",
        "plain seen by layer 1 head 0",
        "plain layer 1 attention head 0 12 0.62 – 0.25 0.38 0.25 – –",
        "plain attention pointing uniform map 0.25 0.12 to 0.50 2 12 9",
    ):
        assert words in told, words
    assert [tag for tag, _ in page.elements].count("video") == 1
    assert len(page.data) == 2 + 2 + 2 + 1  # curves, boxes, accuracy; the theme


def test_what_can_be_done_is_told_of_all_that_is_not_good(tmp_path, monkeypatch):
    findings = [
        Finding("a", Grade.GOOD, "Fine.", advice="Nothing to do:", command="python train.py fit"),
        Finding("b", Grade.UNKNOWN, "Not known.", advice="To test it:", command="python train.py prune"),
        Finding("c", Grade.CAUTION, "Doubtful.", advice="Look:", command="python train.py preview"),
    ]
    found = Verdict(Grade.CAUTION, "Headline.", "Details.", "With caution.", findings)
    monkeypatch.setattr("sightline.report.page.html.run_verdict", lambda results: found)
    text = " ".join(Page(write_report(make_run(tmp_path / "run"))).text.split())
    assert "Not known. To test it: python train.py prune" in text
    assert "Doubtful. Look: python train.py preview" in text
    assert "Nothing to do" not in text


def test_the_verdict_and_the_pruned_models_come_before_all_statistics(page):
    told = " ".join(page.text.split())
    places = [
        told.index(words)
        for words in (
            "Can it be believed?", "Every tested model", "Accuracy against cost", "The model before anything is cut",
            "Each layer and each attention head is switched off", "Pruning removes the units of lowest mean",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "verdict bad" in {dict(attrs).get("class") for attrs in page.attributes}


def test_wide_tables_keep_their_first_column_in_view():
    css = (Path(html.__file__).parent / "template" / "report.css").read_text()
    assert ".scroll th:first-child, .scroll td:first-child { position: sticky; left: 0;" in css


def test_a_figure_and_its_video_stand_once_and_the_video_is_folded(page, run):
    names = [dict(attrs).get("title") for attrs in page.attributes if dict(attrs).get("title", "").endswith(".mp4")]
    assert names == ["b.mp4"]
    tags = [tag for tag, _ in page.elements]
    assert tags.count("img") == 2  # of b.png, and of the picture without a video
    assert tags[tags.index("video") - 2 : tags.index("video")] == ["details", "summary"]


def test_heads_of_training_come_before_those_of_the_test(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for split in ("test", "val"):
        shutil.copy(copy / "tables/specialised_heads_train.csv", copy / f"tables/specialised_heads_{split}.csv")
    text = Page(write_report(copy)).text
    section = text[text.rindex("Specialised heads") :]
    order = [section.index(words) for words in ("By r on the training", "On the validation clips", "On the test clips")]
    assert order == sorted(order)


def test_groups_in_two_splits_are_told(run, tmp_path, page):
    assert "in more than one split" not in page.text
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    clips = pd.read_csv(copy / "splits.csv")
    clips.loc[3, "split"] = "test"
    clips.to_csv(copy / "splits.csv", index=False)
    assert "1 groups are in more than one split: s3." in Page(write_report(copy)).text


def test_figures_hold_the_tables_numbers(page):
    figures = [json.loads(text) for text in page.data[:-1]]
    cost, depth, accuracy, loss, layers, _ = figures
    assert accuracy["data"][0]["y"] == [25, 75, 50]
    assert [trace["y"] for trace in loss["data"]] == [[2, 1.25, 0.75], [1.5, 1, 1.25]]
    assert len(layers["data"][0]["median"]) == 3
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in cost["data"] if trace.get("name")}
    assert lines["lowest"] == ([1.5, 2], [79, 80])
    assert lines["unpruned"][1] == [80, 80]
    assert lines["majority class"][1] == [40, 40]
    assert next(trace for trace in depth["data"] if trace.get("name") == "highest")["x"] == [0, 1]


def test_tokens_and_several_measurements_of_time_are_shown(run, tmp_path, page):
    for heading in ("tokens kept %", "timed"):
        assert heading not in page.text
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "tables" / "pruning.csv"
    rows = pruning_rows(read_pruning_table(path))
    fewer = dataclasses.replace(
        rows[1], plan_id="tokens", method="tokens", score="none", mode="reduced", k=0, removed_layers=(),
        tokens="random_kept0.3", tokens_kept_pct=31.4, timing_run="today",
    )  # fmt: skip
    write_pruning_table([*rows, fewer], path)
    shown = Page(write_report(copy))
    for part in ("tokens random_kept0.3", "tokens kept %", "31.4", "[1] by an earlier version, [2] today"):
        assert part in shown.text, part


def test_the_page_needs_nothing_from_outside(page, run):
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert len([address for address in page.addresses if address.startswith("data:")]) == 5  # a picture links itself


def test_text_of_a_run_never_becomes_markup(tmp_path):
    plain = "x" * len(HOSTILE)
    found = []
    for number, word in enumerate((plain, HOSTILE)):
        run = make_run(tmp_path / f"{number}", (f"{word}a", f"{word}b", f"{word}c"), word)
        found.append(Page(write_report(run, tmp_path / f"{number}.html")))
    harmless, attacked = found
    assert attacked.elements == harmless.elements
    # Where a shell or YAML quotes it, it reads otherwise.
    assert attacked.text.count(HOSTILE) == harmless.text.count(plain) - 2 > 20
    # Plotly reads a few tags in labels; there they must come as text.
    assert not any("<script" in text or "<img" in text for text in attacked.data)


def test_the_folders_name_is_escaped(tmp_path):
    assert "</span> &lt;b&gt;</h1>" in write_report(make_run(tmp_path / "<b>")).read_text()


def test_sections_without_results_name_the_command(tmp_path):
    run = tmp_path / "bare run"
    (run / "tables").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {}, "data": {}, "trainer": {}}))
    page = Page(write_report(run))
    for command in ("test", "ablate", "prune", "tokens", "explain"):
        assert f"python train.py {command} --run '{run}'" in page.text
    assert f"python train.py fit --config '{run}/config.yaml'" in page.text  # a fit cannot start from --run alone
    assert "plotly" not in write_report(run).read_text()
    assert len(page.data) == 1


def test_large_galleries_are_linked(run, tmp_path):
    out = tmp_path / "a b" / "page.html"
    sizes = sorted(path.stat().st_size for path in (run / "attention").glob("*.[pm]*"))
    page = Page(write_report(run, out, embed_mb=sum(sizes[:1]) / 1e6))
    assert "of 3 files are linked" in page.text
    linked = {address for address in page.addresses if not address.startswith(("#", "data:"))}
    assert linked
    assert all((out.parent / address).resolve().is_file() for address in linked)
    assert "of 3 files are linked" not in Page(write_report(run, out)).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: 1"), "lacks model, data or trainer"),
        (lambda run: (run / "config.yaml").write_text("a: ["), "cannot be read"),
        (
            lambda run: (run / "provenance.json").write_text('{"run_format": 9, "commands": []}'),
            "folder of format 9",
        ),
        (lambda run: (run / "provenance.json").write_text("[]"), "not a record of a run's commands"),
        (lambda run: rewrite(run, "format_version", 7), r"layers .* have format 7; this version reads format 1\."),
        (lambda run: rewrite(run, "noise_floor", None), "which also tells noise_floor. Score again: python"),
        (lambda run: (run / "relevance/train/manifest.json").write_text("{"), "is damaged"),
        (lambda run: drop(run, "stability_train_layers", "same_set"), r"lacks the columns same_set.*train\.py ablate"),
        (lambda run: drop(run, "pruning", "macs"), "lacks the columns macs"),
        (lambda run: (run / "tables/metrics.csv").write_bytes(b"\xff\xfe"), "is not a table"),
        (lambda run: (run / "attention/index.json").write_text("[1]"), "one object of file names and captions"),
    ],
)
def test_folders_of_other_versions_are_refused(run, tmp_path, change, message):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report.html"))
    change(copy)
    with pytest.raises(ValueError, match=message):
        write_report(copy)
    assert not list(copy.glob("*report*"))


def rewrite(run: Path, key: str, value: int | None) -> None:
    path = run / "relevance/train/manifest.json"
    content = json.loads(path.read_text())
    content["tables"]["layers"][key] = value
    if value is None:
        del content["tables"]["layers"][key]
    path.write_text(json.dumps(content))


def drop(run: Path, name: str, column: str) -> None:
    path = run / "tables" / f"{name}.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)


def test_what_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(ValueError, match="none of a run's results"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="is a folder"):
        write_report(run, tmp_path)
    with pytest.raises(ValueError, match="embed_mb of at least 0"):
        write_report(run, embed_mb=-1)


def test_the_page_and_its_figures_share_their_colours():
    css = (Path(html.__file__).parent / "template" / "report.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    for colour, variable in THEME.items():
        assert f"{variable}: {colour}" in light
        assert f"{variable}: #" in dark
    assert set(style.CYCLE) <= set(THEME)
