import pandas as pd
import pytest
import torch

from sightline.export.evaluation import accuracy, predict_batch, predict_split
from sightline.run import sharing
from tests.sightline.run.threads import in_threads

NAMES = [f"c{i}" for i in range(5)]


class Split:
    def __init__(self, clips: torch.Tensor, size: int = 2, dies_at: int | None = None) -> None:
        self.clips, self.size, self.dies_at, self.served = clips, size, dies_at, []

    def batches(self, places: list[int]):
        for start in range(0, len(places), self.size):
            chosen = places[start : start + self.size]
            if self.dies_at in chosen:
                raise KeyboardInterrupt
            self.served += chosen
            good = [i for i in chosen if i != 3]
            yield {
                "clip": self.clips[good],
                "label": torch.tensor([i % 2 for i in good], dtype=torch.long),
                "sample_id": [NAMES[i] for i in good],
                "group": ["g"] * len(good),
                "unreadable": [("c3", "empty")] if 3 in chosen else [],
            }


@pytest.fixture
def split() -> Split:
    return Split(
        torch.randint(0, 256, (5, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    )


def test_accuracies_by_hand():
    frame = pd.DataFrame({"label": [0, 0, 0, 1], "predicted": [0, 0, 1, 1]})
    found = accuracy(frame)
    assert (found.correct, found.total) == (3, 4)
    assert found.mean_class == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="No sample"):
        accuracy(frame.iloc[:0])


def test_predictions_are_the_models(tiny_swin, split):
    [batch] = Split(split.clips, size=5).batches([0, 1, 2, 3, 4])
    frame = predict_batch(tiny_swin, batch).to_pandas()
    assert frame["sample_id"].tolist() == ["c0", "c1", "c2", "c4"]
    p = tiny_swin(split.clips).softmax(1)
    for _, row in frame.iterrows():
        i = NAMES.index(row["sample_id"])
        assert row["predicted"] == p[i].argmax().item()
        assert row["p_true"] == pytest.approx(p[i, row["label"]].item(), abs=1e-6)


def test_a_split_is_written_in_order_by_any_number_of_processes(tiny_swin, split, tmp_path):
    one = predict_split(tiny_swin, NAMES, split.batches, tmp_path / "one" / "test.csv")
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["test.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one" / "test.csv"), one)
    path = tmp_path / "two" / "test.csv"
    splits = [Split(split.clips), Split(split.clips)]
    found = in_threads(2, lambda ranks: predict_split(tiny_swin, NAMES, splits[ranks.rank].batches, path, ranks))
    assert [split.served for split in splits] == [[0, 2, 4], [1, 3]]
    assert found[1] is None
    pd.testing.assert_frame_equal(found[0], one, rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(pd.read_csv(path), one, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("made_from", "again"), [({"data_sha256": "d"}, [2, 3, 4]), (None, [0, 1, 2, 3, 4])])
def test_an_interrupted_job_goes_on_where_it_is_known_what_it_was(
    tiny_swin, split, tmp_path, monkeypatch, made_from, again
):
    monkeypatch.setattr(sharing, "_BYTES_PER_PART", 0)
    whole = predict_split(tiny_swin, NAMES, split.batches, tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        predict_split(tiny_swin, NAMES, Split(split.clips, dies_at=2).batches, tmp_path / "test.csv", None, made_from)
    assert not (tmp_path / "test.csv").exists()
    second = Split(split.clips)
    found = predict_split(tiny_swin, NAMES, second.batches, tmp_path / "test.csv", None, made_from)
    assert second.served == again
    pd.testing.assert_frame_equal(found, whole, rtol=0, atol=1e-6)
