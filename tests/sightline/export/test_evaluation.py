import pandas as pd
import pytest
import torch

from sightline.export.evaluation import accuracy, predict, predict_split
from sightline.run.ranks import Ranks

NAMES = [f"c{i}" for i in range(5)]


class Split:
    def __init__(self, clips: torch.Tensor) -> None:
        self.clips = clips

    def batches(self, places: list[int]):
        for start in range(0, len(places), 2):
            chosen = places[start : start + 2]
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
    frame = predict(tiny_swin, split.batches([0, 1, 2, 3, 4]))
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
    # A second process that has done its part already, and rank 0 that joins them.
    parts = tmp_path / "two" / ".test.csv.parts"
    first = Ranks(0, 2)

    class WhileRankZeroWorks(Split):
        def batches(self, places):
            predict(tiny_swin, split.batches([1, 3])).to_csv(parts / "1.csv", index=False)
            assert places == [0, 2, 4]
            return super().batches(places)

    two = predict_split(tiny_swin, NAMES, WhileRankZeroWorks(split.clips).batches, tmp_path / "two" / "test.csv", first)
    pd.testing.assert_frame_equal(two, one, rtol=0, atol=1e-6)
