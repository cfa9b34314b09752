import numpy as np
import pandas as pd
import pytest

from sightline.export.evaluation import accuracy
from sightline.export.segments import merge_chunks

CHUNKS = pd.DataFrame({"sample_id": ["a0", "b0", "a1", "a2", "alone"], "label": [0, 1, 0, 0, 2]})
P = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.4, 0.6, 0.0], [0.2, 0.5, 0.3], [0.0, 0.25, 0.75]])
SEGMENT_OF = {"a0": "a", "a1": "a", "a2": "a", "b0": "b", "alone": ""}


def test_by_hand():
    # a: (0.9 + 0.4 + 0.2, 0.1 + 0.6 + 0.5, 0.3) / 3 = (0.5, 0.4, 0.1): right, though two of its three chunks are wrong.
    merged = merge_chunks(CHUNKS, P, SEGMENT_OF)
    assert merged["segment"].tolist() == ["a", "b", "alone"]
    assert merged["label"].tolist() == [0, 1, 2]
    assert merged["predicted"].tolist() == [0, 2, 2]
    assert merged["chunks"].tolist() == [3, 1, 1]
    np.testing.assert_allclose(merged["p_true"], [0.5, 0.3, 0.75])
    found = accuracy(merged)
    assert (found.correct, found.total, found.mean_class) == (2, 3, pytest.approx(2 / 3))


def test_order_of_chunks_does_not_matter():
    order = [4, 3, 1, 0, 2]
    merged = merge_chunks(CHUNKS.iloc[order], P[order], SEGMENT_OF).set_index("segment")
    expected = merge_chunks(CHUNKS, P, SEGMENT_OF).set_index("segment")
    pd.testing.assert_frame_equal(merged.loc[expected.index], expected)


def test_without_segments_nothing_changes():
    merged = merge_chunks(CHUNKS, P, {})
    assert merged["segment"].tolist() == CHUNKS["sample_id"].tolist()
    assert merged["predicted"].tolist() == P.argmax(1).tolist()


def test_no_chunks():
    assert merge_chunks(CHUNKS[:0], P[:0], SEGMENT_OF).empty


def test_bad_input():
    with pytest.raises(ValueError, match=r"for the 5 chunks, got an array of shape \(4, 3\)"):
        merge_chunks(CHUNKS, P[:4], SEGMENT_OF)
    with pytest.raises(ValueError, match="one label for all chunks of a segment, but a has several"):
        merge_chunks(CHUNKS.assign(label=[0, 1, 0, 1, 2]), P, SEGMENT_OF)
