"""Pointing over a split: rows per clip, head and target, in bounded pieces, by any number of processes."""

import weakref

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from sightline.explain.metrics.pointing_job import SCHEMA, point_split
from sightline.types import Box, ClipTruth, Unit
from tests.sightline.run.threads import in_threads

UNITS = [Unit(0, "temporal", 0), Unit(0, "spatial", 0), Unit(1, "spatial", 3)]
SHAPE = (2, 4, 4)
NAMES = [f"clip{place}" for place in range(8)]


def clip_of(place):
    return torch.full((3, *SHAPE), place, dtype=torch.uint8)


def head_maps(clips):
    """The map of clip i at unit u peaks at row u and column i % 4 of frame 0."""
    for u, unit in enumerate(UNITS):
        maps = torch.full((len(clips), *SHAPE), 0.5)
        for row, clip in enumerate(clips):
            maps[row, 0, u, int(clip[0, 0, 0, 0]) % 4] = 1.0
        yield unit, maps


def truth(name):
    place = int(name[4:])
    if place == 3:
        return ClipTruth()
    boxes = (Box("hand", 0, 0, 0, 2, 1),) if place != 5 else (Box("head", 1, 0, 0, 4, 4),)
    return ClipTruth(boxes, (True, False) if place == 0 else ())


def batches(places, size=2):
    for start in range(0, len(places), size):
        of = places[start : start + size]
        read = [place for place in of if place != 4]  # clip 4 cannot be read
        yield {
            "clip": torch.stack([clip_of(place) for place in read]) if read else torch.zeros(0, 3, *SHAPE),
            "label": torch.tensor([place % 3 for place in read], dtype=torch.int64),
            "sample_id": [f"clip{place}" for place in read],
            "group": [f"s{place % 2}" for place in read],
            "seed": [],
            "unreadable": [("clip4", "broken")] * (len(of) - len(read)),
        }


def test_every_clip_head_and_target_has_a_row(tmp_path):
    path = point_split(NAMES, batches, truth, head_maps, tmp_path / "pointing.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["pointing.parquet"]
    assert pq.read_schema(path).equals(SCHEMA)
    rows = pd.read_parquet(path)
    # Clips 0, 1, 2, 6, 7 show a hand and 5 a head; 0 has an action; 3 shows nothing and 4 cannot be read.
    assert rows.groupby("target", observed=True)["sample_id"].nunique().to_dict() == {"hand": 5, "head": 1, "action": 1}
    assert len(rows) == 7 * len(UNITS)
    first = rows[rows["layer"].eq(0) & rows["site"].eq("temporal")].set_index(["sample_id", "target"])
    # Peaks of the first unit: row 0, columns 0 1 2 . . 1 2 3; the hand's box holds columns 0 and 1 of row 0.
    assert [first.loc[(f"clip{i}", "hand"), "pointing"] for i in (0, 1, 2, 6, 7)] == [1, 1, 0, 0, 0]
    assert first.loc[("clip0", "hand"), "share"] == pytest.approx(1.5 / 16.5)
    assert first.loc[("clip0", "hand"), "uniform_pointing"] == pytest.approx(2 / 32)
    assert first.loc[("clip5", "head"), ["pointing", "uniform_share"]].tolist() == [0, 0.5]
    assert first.loc[("clip0", "action"), ["pointing", "uniform_pointing"]].tolist() == [1, 0.5]
    assert first.loc[("clip0", "action"), "share"] == pytest.approx(8.5 / 16.5)
    assert first.loc[("clip7", "hand"), ["label", "group"]].tolist() == [1, "s1"]
    assert rows[rows["layer"] == 1]["head"].unique() == [3]


def keyed(path):
    rows = pd.read_parquet(path).astype({name: str for name in ("sample_id", "group", "site", "target")})
    return rows.sort_values(["sample_id", "layer", "site", "head", "target"], ignore_index=True)


def test_rows_do_not_depend_on_batches_or_on_the_number_of_processes(tmp_path):
    one = point_split(NAMES, lambda p: batches(p, 3), truth, head_maps, tmp_path / "one.parquet")
    shared = tmp_path / "shared.parquet"
    in_threads(3, lambda ranks: point_split(NAMES, batches, truth, head_maps, shared, ranks))
    pd.testing.assert_frame_equal(keyed(one), keyed(shared))


def test_maps_are_dropped_as_they_come(tmp_path):
    references, alive = [], []

    def watched_maps(clips):
        for unit, maps in head_maps(clips):
            references.append(weakref.ref(maps))
            alive.append(sum(reference() is not None for reference in references))
            yield unit, maps
            del maps

    path = point_split(NAMES, batches, truth, watched_maps, tmp_path / "pointing.parquet")
    assert len(references) >= 3 * len(UNITS)
    assert max(alive) <= 2  # the new one, and the last one until it is replaced
    assert pq.ParquetFile(path).num_row_groups >= 3  # a batch is written before the next one is read


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda name: ClipTruth(), "No clip shows anything to point at"),
        (lambda name: ClipTruth((Box("action", 0, 0, 0, 2, 2),)), "A box cannot be named action"),
    ],
)
def test_nothing_to_point_at_is_said(tmp_path, of, message):
    with pytest.raises(ValueError, match=message):
        point_split(NAMES, batches, of, head_maps, tmp_path / "pointing.parquet")
    assert not (tmp_path / "pointing.parquet").exists()


def test_a_map_of_another_size_names_its_head(tmp_path):
    with pytest.raises(ValueError, match=r"for layer 0 temporal head 0, got \(2, 2, 4, 3\)"):
        point_split(
            NAMES,
            batches,
            truth,
            lambda clips: ((u, m[..., :3]) for u, m in head_maps(clips)),
            tmp_path / "p.parquet",
        )
