import pandas as pd
from rich.console import Console

from sightline.report.tables.split import clips_per_class, render_split_table

CLIPS = pd.DataFrame(
    [("sit", "anna", "train")] * 3
    + [("sit", "ben", "train"), ("walk", "ben", "train"), ("walk", "ben", "train"), ("walk", "dan", "test")],
    columns=["label", "group", "split"],
)


def test_counts_by_hand():
    found = clips_per_class(CLIPS, ["walk", "sit", "run"])
    assert found.to_dict("list") == {
        "split": ["train"] * 3 + ["test"] * 3,
        "label": ["walk", "sit", "run"] * 2,
        "clips": [2, 4, 0, 1, 0, 0],
        "groups": [1, 2, 0, 1, 0, 0],
    }
    assert found["clips"].sum() == len(CLIPS)


def test_the_printed_table():
    console = Console(width=100, record=True)
    console.print(render_split_table(CLIPS, ["walk", "sit"]))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0] == ["Data:", "2", "classes"]
    assert lines[1][:4] == ["split", "groups", "classes", "clips"]
    assert lines[-2] == ["train", "2", "2", "6", "2", "walk", "4", "sit"]
    assert lines[-1] == ["test", "1", "1", "1", "0", "sit", "1", "walk"]


def test_class_names_are_no_markup():
    console = Console(width=100, record=True)
    console.print(render_split_table(CLIPS.replace("sit", "[red]"), ["walk", "[red]"]))
    assert "4  [red]" in console.export_text()
