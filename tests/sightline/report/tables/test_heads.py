"""The files of chosen heads."""

import pandas as pd

from sightline.report.tables.heads import FILES, head_tables, write_head_tables
from tests.sightline.relevance.test_heads import NAMES, random_table


def test_tables_are_written_per_split_and_read_back(tmp_path):
    tables = head_tables(random_table(0), ["r", "jsd"], NAMES, early=1, deep=2, last=2)
    paths = write_head_tables(tables, tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        file.format(split="train") for file in FILES.values()
    )
    assert len(paths) == len(FILES)
    specialised = pd.read_csv(tmp_path / "specialised_heads_train.csv")
    assert specialised["score"].value_counts().to_dict() == {"r": 6, "jsd": 6}  # two sites, three classes
    assert set(specialised["layer"]) <= {3, 4}
    shared = pd.read_csv(tmp_path / "shared_heads_train.csv")
    assert shared.groupby(["score", "site"])["classes"].sum().tolist() == [3] * 4
    by_sample = pd.read_csv(tmp_path / "extreme_heads_train_by_sample.csv")
    assert len(by_sample) == 12 * 2 * 4 * 2 * 2  # samples, sites, depths, extremes, scores


def test_what_there_is_no_table_of_any_more_is_deleted(tmp_path):
    tables = head_tables(random_table(0), ["r"], NAMES, early=1, deep=2, last=2)
    write_head_tables(tables, tmp_path, "train")
    write_head_tables(tables, tmp_path, "test")
    assert write_head_tables({}, tmp_path, "train") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        file.format(split="test") for file in FILES.values()
    )
