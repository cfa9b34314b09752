import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.relevance.scores import jensen_shannon, score


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_by_hand():
    # P = (1/2, 1/2), P_u = (1/4, 3/4), label 0: dprob = 1/4.
    # M = (3/8, 5/8); KL(P||M) = (log2(4/3) + log2(4/5)) / 2, KL(P_u||M) = log2(2/3) / 4 + 3 log2(6/5) / 4.
    found = score(logits_of(0.5, 0.5)[None], logits_of(0.25, 0.75)[None, None], torch.tensor([0]))
    jsd = ((math.log2(4 / 3) + math.log2(4 / 5)) / 2 + math.log2(2 / 3) / 4 + 3 * math.log2(6 / 5) / 4) / 2
    assert jsd == pytest.approx(0.04879, abs=1e-5)
    assert found.dprob.item() == pytest.approx(0.25, abs=1e-7)
    assert found.jsd.item() == pytest.approx(jsd, abs=1e-7)
    assert found.r.item() == pytest.approx((jsd + 0.25) / 2, abs=1e-7)
    assert found.p_true.item() == pytest.approx(0.5, abs=1e-7)
    assert found.p_true_ablated.item() == pytest.approx(0.25, abs=1e-7)
    assert found.predicted.tolist() == [0]


def test_the_largest_change_is_one():
    certain = torch.tensor([[200.0, -200.0]])
    found = score(certain, -certain[None], torch.tensor([0]))
    assert (found.dprob.item(), found.jsd.item(), found.r.item()) == (1, 1, 1)


def test_no_change_is_zero():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    found = score(logits, logits[None], torch.zeros(4, dtype=torch.long))
    assert found.r.abs().max() == 0


def test_units_and_samples_are_not_mixed_up():
    generator = torch.Generator().manual_seed(0)
    base, ablated = torch.randn(3, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    labels = torch.tensor([4, 0, 2])
    found = score(base, ablated, labels)
    for u in range(2):
        for b in range(3):
            alone = score(base[b : b + 1], ablated[u : u + 1, b : b + 1], labels[b : b + 1])
            for name in ("dprob", "jsd", "r", "p_true_ablated"):
                assert getattr(found, name)[u, b] == getattr(alone, name)[0, 0]


def test_a_prediction_that_is_not_finite_is_refused():
    good = torch.zeros(1, 3)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            score(good, torch.full((1, 1, 3), bad), torch.tensor([0]))


distribution = st.lists(st.floats(-60, 60), min_size=2, max_size=6)


@given(distribution, st.randoms(use_true_random=False))
def test_divergence_is_symmetric_and_between_zero_and_one(values, random):
    p = torch.tensor(values, dtype=torch.float64).softmax(0)
    shuffled = list(values)
    random.shuffle(shuffled)
    q = torch.tensor(shuffled, dtype=torch.float64).softmax(0)
    there, back = jensen_shannon(p, q), jensen_shannon(q, p)
    assert 0 <= there <= 1
    assert there == pytest.approx(back.item(), abs=1e-12)
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-15)


def test_divergence_with_impossible_classes():
    p = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    q = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert jensen_shannon(p, q) == 1
    assert jensen_shannon(p, (p + q) / 2) == pytest.approx(0.3112781, abs=1e-6)
