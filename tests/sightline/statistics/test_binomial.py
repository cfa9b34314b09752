import math
from statistics import NormalDist

import pytest

from sightline.statistics.binomial import accuracy_interval


def test_wilson_by_hand():
    # z = 1.959964, z² = 3.841459; p = .8, n = 10: centre (.8 + .192073) / 1.384146 = .716739,
    # reach 1.959964 * sqrt(.016 + .009604) / 1.384146 = .226577.
    assert accuracy_interval(8, 10) == pytest.approx((49.0162, 94.3316), abs=1e-3)
    # All correct: the lower end is n / (n + z²).
    assert accuracy_interval(10, 10) == pytest.approx((100 * 10 / 13.841459, 100), abs=1e-4)
    assert accuracy_interval(0, 10) == pytest.approx((0, 100 * 3.841459 / 13.841459), abs=1e-4)
    assert accuracy_interval(0, 3)[0] >= 0
    assert accuracy_interval(8, 10, confidence=0.5)[0] > accuracy_interval(8, 10)[0]


@pytest.mark.parametrize(("correct", "total"), [(1, 3), (5, 10), (700, 911), (9536, 9537)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_agrees_with_its_closed_form(correct, total, confidence):
    z, p = NormalDist().inv_cdf((1 + confidence) / 2), correct / total
    reach = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    ends = [100 * (p + z * z / (2 * total) + sign * reach) / (1 + z * z / total) for sign in (-1, 1)]
    assert accuracy_interval(correct, total, confidence) == pytest.approx(ends, abs=1e-10)


@pytest.mark.parametrize("counts", [(0, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="0 <= correct <= total"):
        accuracy_interval(*counts)
