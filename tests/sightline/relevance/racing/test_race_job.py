"""A race over a split: the sets of full evaluation with fewer evaluations, however it is run or interrupted."""

import pandas as pd
import pytest
import torch

from sightline.relevance import job
from sightline.relevance.race_job import race_split
from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.ranking import rank_units
from sightline.relevance.table import ScoreTable, Settings, read_manifest, read_scores
from sightline.types import Unit
from tests.sightline.run.threads import in_threads

COUNT = 240
NAMES = [f"clip{i:03d}" for i in range(COUNT)]
BAD = {3, 77}
CLASSES = [str(i % 5) for i in range(COUNT)]
RACE = RaceSettings(ks=(1, 3))


class Interrupted(BaseException):
    """Stands for a kill: nothing may catch it."""


class Split:
    """Small clips, two of them unreadable; can be made to die after some batches."""

    def __init__(self, batch_size: int = 40, die_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(5)
        self.clips = torch.randint(0, 256, (COUNT, 3, 4, 32, 32), dtype=torch.uint8, generator=generator)
        self.batch_size, self.die_after, self.batches_served, self.served = batch_size, die_after, 0, []

    def batches(self, places: list[int]):
        for start in range(0, len(places), self.batch_size):
            if self.batches_served == self.die_after:
                raise Interrupted
            self.batches_served += 1
            chosen = places[start : start + self.batch_size]
            self.served += chosen
            good = [i for i in chosen if i not in BAD]
            yield {
                "clip": self.clips[good],
                "label": torch.tensor([i % 5 for i in good], dtype=torch.long),
                "sample_id": [NAMES[i] for i in good],
                "group": [f"s{i % 3}" for i in good],
                "unreadable": [(NAMES[i], "cut short") for i in chosen if i in BAD],
            }


def make_table(folder, settings=RACE, kind="heads") -> ScoreTable:
    return ScoreTable(folder / "relevance" / "train", Settings(kind, "w", "d", sampling=str(settings)))


def run(folder, backbone, split, settings=RACE, kind="heads", **options) -> pd.DataFrame:
    table = make_table(folder, settings, kind)
    race_split(
        backbone, table, NAMES, split.batches, settings, **{"classes": CLASSES, "seconds_per_part": 0, **options}
    )
    return read_scores(table.folder, kind)


def record(folder, kind="heads") -> dict:
    return read_manifest(folder / "relevance" / "train")["tables"][kind]["race"]


@pytest.fixture
def uneven_swin(tiny_swin):
    """Heads of very different relevance, so that most are soon settled."""
    with torch.no_grad():
        for unit in tiny_swin.units("heads"):
            weight = tiny_swin.layer_modules()[unit.layer].attn.proj.weight
            weight[:, unit.head * 8 : (unit.head + 1) * 8] *= 0.02 * 1.6 ** (3 * unit.layer + unit.head)
    return tiny_swin


@pytest.fixture
def raced(tmp_path, uneven_swin) -> pd.DataFrame:
    return run(tmp_path / "raced", uneven_swin, Split())


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    keys = ["sample_id", "label", "predicted", "group", "layer", "site", "head"]
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    numbers = ["p_true", "p_true_ablated", "dprob", "jsd", "r"]
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], rtol=0, atol=1e-5)


def test_a_race_chooses_what_full_evaluation_chooses_with_less(tmp_path, uneven_swin, raced):
    full = ScoreTable(tmp_path / "full" / "relevance" / "train", Settings("heads", "w", "d"))
    job.score_split(uneven_swin, full, NAMES, Split().batches)
    everything = read_scores(full.folder, "heads")
    ranking = rank_units(everything)
    order = [Unit(*unit) for unit in ranking[["layer", "site", "head"]].itertuples(index=False)]
    found = record(tmp_path / "raced")
    assert {(members["mode"], members["k"]) for members in found["sets"]} == {
        (mode, k) for mode in ("lowest", "highest") for k in (1, 3)
    }
    for members in found["sets"]:
        expected = order[: members["k"]] if members["mode"] == "lowest" else order[-members["k"] :]
        assert {Unit(*unit) for unit in members["units"]} == set(expected)
    assert len(raced) < 0.95 * len(everything)
    assert found["saving"] == pytest.approx(len(order) * COUNT / len(raced), rel=0.02)
    assert rank_units(raced, race=found)["n"].tolist() != [COUNT - 2] * len(order)
    # What was scored is what full evaluation scores.
    keys = ["sample_id", "layer", "site", "head"]
    both = raced.merge(everything, on=keys, suffixes=("", "_full"))
    assert len(both) == len(raced)
    assert (both["r"] - both["r_full"]).abs().max() < 1e-5


@pytest.mark.parametrize("die_after", [0, 1, 3])
def test_an_interrupted_race_goes_on_and_ends_alike(tmp_path, uneven_swin, raced, die_after):
    with pytest.raises(Interrupted):
        run(tmp_path, uneven_swin, Split(20, die_after=die_after))
    second = Split(30)
    assert_same(run(tmp_path, uneven_swin, second), raced)
    assert record(tmp_path)["sets"] == record(tmp_path / "raced")["sets"]
    assert len(second.served) < COUNT or die_after == 0


def test_two_processes_decide_alike(tmp_path, uneven_swin, raced):
    splits = [Split(16), Split(16)]
    table = make_table(tmp_path)
    in_threads(
        2,
        lambda ranks: race_split(
            uneven_swin,
            table,
            NAMES,
            splits[ranks.rank].batches,
            RACE,
            classes=CLASSES,
            ranks=ranks,
            seconds_per_part=0,
        ),
    )
    served = [i for split in splits for i in split.served]
    assert len(served) == len(set(served))
    assert min(len(split.served) for split in splits) > 10
    assert_same(read_scores(table.folder, "heads"), raced)


def test_layers_that_cannot_be_removed_are_no_rivals(tmp_path, tiny_swin):
    tiny_swin.layer_modules()[2].removable = False
    table = run(tmp_path, tiny_swin, Split(), RaceSettings(ks=(1,), modes=("lowest",)), "layers")
    found = record(tmp_path, "layers")
    assert [unit[0] for unit in found["units"]] == [0, 1, 3]
    assert set(table["layer"]) == {0, 1, 2, 3}


def test_another_race_or_full_evaluation_is_another_table(tmp_path, uneven_swin, raced):
    folder = tmp_path / "raced"
    with pytest.raises(ValueError, match="another sampling"):
        run(folder, uneven_swin, Split(), RaceSettings(ks=(2,)))
    full = ScoreTable(folder / "relevance" / "train", Settings("heads", "w", "d"))
    with pytest.raises(ValueError, match="another sampling"):
        job.score_split(uneven_swin, full, NAMES, Split().batches)
    split = Split()
    assert_same(run(folder, uneven_swin, split), raced)
    assert split.served == []


def test_an_approximate_race_warns_of_rare_classes(tmp_path, tiny_swin, caplog):
    settings = RaceSettings(ks=(1,), modes=("lowest",), method="approximate", min_samples=60)
    classes = ["rare"] * 5 + ["common"] * (COUNT - 5)
    run(tmp_path, tiny_swin, Split(), settings, "layers", classes=classes)
    assert any("fewest: rare, 2.1%" in message for message in caplog.messages)
    assert any("decides after 60 clips" in message for message in caplog.messages)
    found = record(tmp_path, "layers")
    assert found["nominal_confidence"] == 0.99
    assert "confidence" not in found


def test_settings_that_are_refused_cost_no_earlier_table(tmp_path, uneven_swin, raced):
    folder = tmp_path / "raced"
    with pytest.raises(ValueError, match="needs no minimum"):
        run(folder, uneven_swin, Split(), RaceSettings(ks=(1,), min_samples=30), overwrite=True)
    assert_same(read_scores(make_table(folder).folder, "heads"), raced)


def test_sets_larger_than_the_number_of_units_are_refused(tmp_path, uneven_swin):
    with pytest.raises(ValueError, match="at most the number of units, 12"):
        run(tmp_path, uneven_swin, Split(), RaceSettings(ks=(13,)))
