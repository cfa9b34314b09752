import pandas as pd
import pytest

from sightline.report.numbers import column, decimals_for, fixed, interval, short, signed


def test_numbers_by_hand():
    assert fixed(1234.5, 1) == "1,234.5"
    assert fixed(-0.25, 2) == "−0.25"
    assert fixed(float("nan"), 2) == "–"
    assert signed(2, 1) == "+2.0"
    assert signed(-2, 1) == "−2.0"
    assert interval(0.1, 0.25, 2) == "0.10 to 0.25"
    assert interval(0.1, None, 2) == "–"
    assert short(1.2345e-7) == "1.23e−07"


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([0.5, 0.25], 2), ([0.012, 0.5, 0.5, 0.5], 2), ([0.012, 0.02], 3), ([3e-9], 6), ([0.0], 1), ([], 1), ([250.0], 1)],
)
def test_small_numbers_get_the_decimals_they_need(values, decimals):
    assert decimals_for(values) == decimals


def test_a_column_lines_up():
    assert column(pd.Series([0.5, 0.0125, None])) == ["0.50", "0.01", "–"]
    assert column(pd.Series([12.0, 1000.0])) == ["12", "1,000"]
    assert {len(text.partition(".")[2]) for text in column(pd.Series([0.5, 10.25, 3.0]))} == {1}
    assert column(pd.Series([0.0, 0.0])) == ["0.0", "0.0"]
