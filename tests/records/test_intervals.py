"""Intervals cover as often as they say, and tests err as seldom: by simulation, beside closed forms."""

import numpy as np
import pytest
from scipy import stats

from dd_bench.records.intervals import bootstrap_interval, paired_difference, t_interval


def test_t_and_paired_are_scipy_s():
    a, b = [0.71, 0.74, 0.69, 0.75, 0.73], [0.70, 0.72, 0.69, 0.71, 0.72]
    d = paired_difference(a, b)
    other = stats.ttest_rel(a, b)
    assert d.p == pytest.approx(other.pvalue, rel=1e-9) and d.n == 5
    assert (d.low, d.high) == pytest.approx(tuple(other.confidence_interval()))
    assert t_interval(a) == pytest.approx(tuple(stats.ttest_1samp(a, 0).confidence_interval()))


def test_bootstrap_is_scipy_s():
    sample = np.random.default_rng(0).normal(0.7, 0.02, 30)
    other = stats.bootstrap((sample,), np.mean, method="percentile", random_state=1).confidence_interval
    assert bootstrap_interval(sample) == pytest.approx((other.low, other.high), abs=1e-3)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_t_covers_95_percent(n):
    draws = np.random.default_rng(n).normal(0.7, 0.01, (4000, n))
    ends = np.array([t_interval(row) for row in draws.tolist()])
    hits = ((ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7)).mean()
    assert hits == pytest.approx(0.95, abs=0.012), "three standard errors"


def test_bootstrap_covers_with_many_values_and_is_narrow_with_few():
    for n, wanted in ((40, 0.94), (5, 0.83)):
        draws = np.random.default_rng(n).normal(0.7, 0.01, (600, n))
        ends = np.array([bootstrap_interval(row, draws=500) for row in draws])
        hits = ((ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7)).mean()
        assert hits == pytest.approx(wanted, abs=0.04)


class TestPairs:
    def test_false_wins_are_5_percent_and_true_ones_are_found(self):
        """Two methods whose networks share most of what makes them vary: pairs tell what Welch cannot."""
        draws = np.random.default_rng(0)
        found = {}
        for shift, n in ((0.0, 2000), (0.01, 400)):
            shared = draws.normal(0, 0.02, (n, 5))
            a, b = (0.7 + shared + draws.normal(0, 0.003, (n, 5)) for _ in range(2))
            pairs = [paired_difference(x, y).p for x, y in zip((a + shift).tolist(), b.tolist(), strict=True)]
            welch = stats.ttest_ind(a + shift, b, equal_var=False, axis=1).pvalue
            found[shift] = (np.array(pairs) < 0.05).mean(), (welch < 0.05).mean()
        assert found[0.0][0] == pytest.approx(0.05, abs=0.015)
        assert found[0.01][0] > 0.9 > 0.5 > found[0.01][1]

    def test_equal_differences(self):
        assert paired_difference([0.5, 0.6], [0.4, 0.5]).p == 0
        assert paired_difference([0.5, 0.6], [0.5, 0.6]).p == 1

    def test_what_makes_no_pairs(self):
        with pytest.raises(ValueError, match="2 values and 3 make no pairs"):
            paired_difference([1, 2], [1, 2, 3])
        with pytest.raises(ValueError, match=r"1 value\(s\) have no spread"):
            t_interval([1.0])
