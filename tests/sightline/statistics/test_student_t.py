import numpy as np
import pytest

from sightline.statistics.student_t import t_quantile


def tail_by_integration(value: float, df: int) -> float:
    """P(T > value) by adding up the density, with value = sqrt(df) tan(angle)."""
    edges = np.linspace(np.arctan(value / df**0.5), np.pi / 2, 400_001)
    middles, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    everything = np.cos(np.linspace(-np.pi / 2, np.pi / 2, 400_001)) ** (df - 1)
    return float((np.cos(middles) ** (df - 1)).sum() * step / (everything.sum() * np.pi / 400_000))


@pytest.mark.parametrize(
    ("tail", "df", "value"), [(0.025, 7, 2.364624), (0.025, 13, 2.160369), (0.005, 10, 3.169273), (0.05, 30, 1.697261)]
)
def test_published_values(tail, df, value):
    assert t_quantile(tail, df) == pytest.approx(value, rel=2e-3)


@pytest.mark.parametrize(("tail", "df"), [(1e-3, 29), (1e-5, 99), (1e-8, 99), (1e-8, 1000)])
def test_far_tails_agree_with_the_integrated_density(tail, df):
    # A quantile that is off by 0.2 % moves these tails by less than 8 %.
    assert tail_by_integration(t_quantile(tail, df), df) == pytest.approx(tail, rel=0.08)


def test_what_the_expansion_does_not_cover_is_refused():
    with pytest.raises(ValueError, match="at least 7 degrees"):
        t_quantile(0.025, 6)
    with pytest.raises(ValueError, match="tail in"):
        t_quantile(0.0, 10)
