"""Scoring a split: whoever does it, however often it is interrupted, the table is the same."""

import dataclasses
import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from sightline.relevance import job
from sightline.relevance.memory import StackSize
from sightline.relevance.table import SCHEMA, ScoreTable, Settings, read_manifest, read_scores
from sightline.run.atomic import write_json
from sightline.run.parts import Piece
from sightline.run.ranks import Ranks
from sightline.run.sharing import work_through

NAMES = [f"clip{i}" for i in range(7)]
BAD = "clip4"


class Interrupted(BaseException):
    """Stands for a kill: nothing may catch it."""


class Split:
    """Seven clips, one of them unreadable, in batches; can be made to die after some batches."""

    def __init__(self, batch_size: int = 2, die_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(5)
        self.clips = torch.randint(0, 256, (7, 3, 4, 32, 32), dtype=torch.uint8, generator=generator)
        self.batch_size, self.die_after, self.served = batch_size, die_after, []

    def batches(self, places: list[int]):
        for number, start in enumerate(range(0, len(places), self.batch_size)):
            if number == self.die_after:
                raise Interrupted
            chosen = places[start : start + self.batch_size]
            self.served += chosen
            good = [i for i in chosen if NAMES[i] != BAD]
            yield {
                "clip": self.clips[good],
                "label": torch.tensor([i % 5 for i in good], dtype=torch.long),
                "sample_id": [NAMES[i] for i in good],
                "group": [f"s{i % 3}" for i in good],
                "unreadable": [(BAD, "cut short")] if BAD in [NAMES[i] for i in chosen] else [],
            }


def make_table(tmp_path, kind="heads", **changes) -> ScoreTable:
    settings = {"kind": kind, "weights_sha256": "w", "data_sha256": "d", **changes}
    return ScoreTable(tmp_path / "relevance" / "train", Settings(**settings))


def run(tmp_path, backbone, split, ranks=None, kind="heads", **options) -> pd.DataFrame:
    job.score_split(backbone, make_table(tmp_path, kind), NAMES, split.batches, ranks=ranks, **options)
    return read_scores(tmp_path / "relevance" / "train", kind)


def score(backbone, table, split, places, ranks=None) -> None:
    work = job.score_work(backbone, backbone.units("heads"), StackSize())
    work_through(table.parts, split.batches(places), work, len(places), ranks or Ranks(), seconds_per_part=0)


@pytest.fixture
def expected(tmp_path, tiny_swin) -> pd.DataFrame:
    return run(tmp_path / "expected", tiny_swin, Split())


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    keys = ["sample_id", "label", "predicted", "group", "layer", "site", "head"]
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    numbers = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
    # Kernels differ with the number of clips in a batch.
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], rtol=0, atol=1e-5)


def test_the_table_has_every_readable_sample_and_unit_once(tmp_path, tiny_swin, expected):
    assert len(expected) == 6 * len(tiny_swin.units("heads"))
    assert expected["sample_id"].drop_duplicates().tolist() == [n for n in NAMES if n != BAD]
    assert not expected.duplicated(["sample_id", "layer", "site", "head"]).any()
    manifest = read_manifest(tmp_path / "expected" / "relevance" / "train")["tables"]["heads"]
    assert manifest["left_out"] == [{"sample_id": BAD, "reason": "cut short"}]
    assert manifest["samples"] == 6
    assert 0 <= manifest["noise_floor"] < 1e-6
    folder = tmp_path / "expected" / "relevance" / "train"
    assert sorted(p.name for p in folder.iterdir()) == ["heads.parquet", "manifest.json"]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_changes_nothing(tmp_path, tiny_swin, expected, batch_size):
    assert_same(run(tmp_path, tiny_swin, Split(batch_size)), expected)


@pytest.mark.parametrize("die_after", [0, 1, 3])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, tiny_swin, expected, die_after):
    dying = Split(die_after=die_after)
    with pytest.raises(Interrupted):
        run(tmp_path, tiny_swin, dying, seconds_per_part=0)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        read_scores(tmp_path / "relevance" / "train", "heads")
    second = Split(batch_size=3)
    assert_same(run(tmp_path, tiny_swin, second, seconds_per_part=0), expected)
    assert set(dying.served) | set(second.served) == set(range(7))
    assert set(dying.served) & set(second.served) <= {NAMES.index(BAD)}  # only the unreadable clip is tried again


def test_a_part_that_was_being_written_is_not_taken_for_whole(tmp_path, tiny_swin, expected):
    table = make_table(tmp_path)
    table.begin()
    (table.parts.folder / ".half.partial-host-1_0.parquet").write_bytes(b"PAR1 and then nothing")
    assert_same(run(tmp_path, tiny_swin, Split()), expected)


def test_parts_that_the_first_release_left_are_used(tmp_path, tiny_swin, expected):
    table = make_table(tmp_path)
    table.parts.folder.mkdir(parents=True)
    write_json(table.parts.folder / "settings.json", dataclasses.asdict(table.settings))
    told = json.dumps({"done": ["clip0", "clip1"], "left_out": {}, "noise_floor": 0.25})
    rows = pa.Table.from_pandas(expected[expected["sample_id"].isin(["clip0", "clip1"])], SCHEMA, preserve_index=False)
    pq.write_table(rows.replace_schema_metadata({b"sightline": told}), table.parts.folder / "0a1b.parquet")
    split = Split()
    assert_same(run(tmp_path, tiny_swin, split), expected)
    assert split.served == [2, 3, 4, 5, 6]
    assert read_manifest(table.folder)["tables"]["heads"]["noise_floor"] == 0.25


def test_half_precision_is_what_the_settings_say(tmp_path, tiny_swin, expected):
    table = make_table(tmp_path, precision="bf16")
    job.score_split(tiny_swin, table, NAMES, Split().batches)
    found = read_scores(table.folder, "heads")
    difference = (found["r"] - expected["r"]).abs().max()
    entry = read_manifest(table.folder)["tables"]["heads"]
    assert 1e-4 < difference < 0.1
    assert 1e-6 < entry["noise_floor"] < 0.1  # measured in the same precision


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_divide_the_samples(tmp_path, tiny_swin, expected, world):
    """Processes in turns, each to the point where it waits for the others."""
    table = make_table(tmp_path)
    table.begin()
    served = []
    for rank in range(world):
        split = Split()
        served += [split]
        mine = list(range(7))[rank::world]
        score(tiny_swin, table, split, mine, Ranks(rank, world))
    assert sorted(i for split in served for i in split.served) == list(range(7))
    table.finish(NAMES, {})
    assert_same(read_scores(table.folder, "heads"), expected)


def test_a_sample_in_two_parts_counts_once(tmp_path, tiny_swin, expected):
    table = make_table(tmp_path)
    table.begin()
    for _ in range(2):
        score(tiny_swin, table, Split(), list(range(7)))
    table.finish(NAMES, {})
    assert_same(read_scores(table.folder, "heads"), expected)


def test_pieces_of_machines_that_share_nothing_make_the_same_table(tmp_path, tiny_swin, expected):
    copies = []
    for number in (2, 0, 1):
        table = make_table(tmp_path / f"machine{number}")
        if number == 0:
            with pytest.raises(Interrupted):
                job.score_split(
                    tiny_swin, table, NAMES, Split(1, die_after=1).batches, piece=Piece(0, 3), seconds_per_part=0
                )
        split = Split(1)
        job.score_split(tiny_swin, table, NAMES, split.batches, piece=Piece(number, 3))
        assert split.served == {0: [3, 6], 1: [1, 4], 2: [2, 5]}[number]
        copies.append(table.folder)
    again = make_table(tmp_path / "again")
    job.score_split(tiny_swin, again, NAMES, Split().batches, piece=Piece(2, 3))

    merged = make_table(tmp_path / "merged")
    merged.begin()
    merged.gather([*copies[:2], again.folder])
    with pytest.raises(RuntimeError, match=r"2 of 7 samples have no results yet \(piece 1 of 3\), e\.g\. clip1"):
        merged.finish(NAMES, {})
    merged.gather([copies[2]])
    entry = merged.finish(NAMES, {})
    assert_same(read_scores(merged.folder, "heads"), expected)
    assert entry["left_out"] == [{"sample_id": BAD, "reason": "cut short"}]
    assert not merged.parts.folder.exists()
    assert "piece" not in json.dumps(read_manifest(merged.folder))
    with pytest.raises(ValueError, match="made from precision 'float32'; expected precision 'bf16'"):
        make_table(tmp_path / "other", precision="bf16").gather([copies[0]])


def test_scores_that_differ_between_machines_are_not_mixed(tmp_path, tiny_swin):
    table = make_table(tmp_path)
    job.score_split(tiny_swin, table, NAMES, Split().batches, piece=Piece(0, 2))
    [path] = table.parts.files()
    part, rows = table.parts.read_part(path), pq.read_table(path)
    wrong = rows.set_column(rows.schema.get_field_index("r"), "r", pc.add(rows["r"], 0.01))
    table.parts.write([wrong], part.done, {}, part.notes, 2)
    job.score_split(tiny_swin, table, NAMES, Split().batches, piece=Piece(1, 2))
    with pytest.raises(ValueError, match="Two parts hold different results of the same sample"):
        table.finish(NAMES, {})
    assert not table.path.exists()


def test_a_finished_table_is_not_made_again(tmp_path, tiny_swin, expected):
    split = Split()
    run(tmp_path / "expected", tiny_swin, split)
    assert split.served == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights_sha256": "other"}, "model"),
        ({"data_sha256": "other"}, "data list"),
        ({"precision": "bf16"}, "precision"),
        ({"sampling": "racing"}, "sampling"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_noticed(tmp_path, tiny_swin, changes, reason, finished):
    if finished:
        run(tmp_path, tiny_swin, Split())
    else:
        with pytest.raises(Interrupted):
            run(tmp_path, tiny_swin, Split(die_after=1), seconds_per_part=0)
    other = make_table(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"another {reason}"):
        job.score_split(tiny_swin, other, NAMES, Split().batches)
    split = Split()
    job.score_split(tiny_swin, other, NAMES, split.batches, overwrite=True)
    assert sorted(split.served) == list(range(7))
    entry = read_manifest(other.folder)["tables"]["heads"]
    assert all(entry[key] == value for key, value in changes.items())


def test_heads_and_layers_share_a_folder(tmp_path, tiny_swin):
    run(tmp_path, tiny_swin, Split(), kind="heads")
    layers = run(tmp_path, tiny_swin, Split(), kind="layers")
    assert layers["site"].isna().all()
    assert layers["head"].isna().all()
    assert set(json.loads((tmp_path / "relevance/train/manifest.json").read_text())["tables"]) == {"heads", "layers"}


def test_missing_samples_are_not_passed_over(tmp_path, tiny_swin):
    table = make_table(tmp_path)
    table.begin()
    score(tiny_swin, table, Split(), [0, 1])
    with pytest.raises(RuntimeError, match=r"5 of 7 samples have no results yet, e\.g\. clip2"):
        table.finish(NAMES, {})


def test_a_failure_on_one_process_stops_all():
    def fail() -> None:
        raise ValueError("no such clip")

    with pytest.raises(ValueError, match="no such clip"):
        Ranks().together(fail)
    with pytest.raises(RuntimeError, match="Another process"):
        Ranks(1, 2, all_true=lambda flag: False).together(lambda: None)
    assert Ranks(1, 2).together(lambda: 5, only_first=True) is None
