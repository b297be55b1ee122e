"""Coverage of intervals and error rates of tests in simulations, and comparisons with SciPy."""

import numpy as np
import pytest
from scipy import stats

from dd_bench.records.intervals import bootstrap_interval, paired_difference, t_interval, unpaired_difference


def test_t_interval_and_paired_test_equal_scipy():
    a, b = [0.71, 0.74, 0.69, 0.75, 0.73], [0.70, 0.72, 0.69, 0.71, 0.72]
    d = paired_difference(a, b)
    reference = stats.ttest_rel(a, b)
    assert d.p == pytest.approx(reference.pvalue, rel=1e-9) and d.n == 5
    assert (d.low, d.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert t_interval(a) == pytest.approx(tuple(stats.ttest_1samp(a, 0).confidence_interval()))


def test_unpaired_difference_equals_scipy():
    a, b = [0.71, 0.74, 0.69, 0.75, 0.73], [0.60, 0.68, 0.64]
    d, reference = unpaired_difference(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert d.mean == pytest.approx(np.mean(a) - np.mean(b)) and d.p == pytest.approx(reference.pvalue)
    assert (d.low, d.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert unpaired_difference([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25, 0.0, 2)
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        unpaired_difference(a, [0.5])


def test_bootstrap_equals_scipy():
    sample = np.random.default_rng(0).normal(0.7, 0.02, 30)
    reference = stats.bootstrap((sample,), np.mean, method="percentile", random_state=1).confidence_interval
    assert bootstrap_interval(sample) == pytest.approx((reference.low, reference.high), abs=1e-3)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_coverage_of_t_interval(n):
    draws = np.random.default_rng(n).normal(0.7, 0.01, (4000, n))
    ends = np.array([t_interval(row) for row in draws.tolist()])
    hits = ((ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7)).mean()
    assert hits == pytest.approx(0.95, abs=0.012), "tolerance of three standard errors"


def test_coverage_of_bootstrap_interval():
    for n, coverage in ((40, 0.94), (5, 0.83)):
        draws = np.random.default_rng(n).normal(0.7, 0.01, (600, n))
        ends = np.array([bootstrap_interval(row, resamples=500) for row in draws])
        hits = ((ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7)).mean()
        assert hits == pytest.approx(coverage, abs=0.04)


class TestPairs:
    def test_error_rate_and_power_of_the_paired_test(self):
        """If the networks share most of their variance, the paired test has more power than Welch's test."""
        draws = np.random.default_rng(0)
        significant = {}
        for shift, n in ((0.0, 2000), (0.01, 400)):
            shared = draws.normal(0, 0.02, (n, 5))
            a, b = (0.7 + shared + draws.normal(0, 0.003, (n, 5)) for _ in range(2))
            pairs = [paired_difference(x, y).p for x, y in zip((a + shift).tolist(), b.tolist(), strict=True)]
            welch = stats.ttest_ind(a + shift, b, equal_var=False, axis=1).pvalue
            significant[shift] = (np.array(pairs) < 0.05).mean(), (welch < 0.05).mean()
        assert significant[0.0][0] == pytest.approx(0.05, abs=0.015)
        assert significant[0.01][0] > 0.9 > 0.5 > significant[0.01][1]

    def test_equal_differences(self):
        assert paired_difference([0.5, 0.6], [0.4, 0.5]).p == 0
        assert paired_difference([0.5, 0.6], [0.5, 0.6]).p == 1

    def test_invalid_samples(self):
        with pytest.raises(ValueError, match="equal numbers of values, got 2 and 3"):
            paired_difference([1, 2], [1, 2, 3])
        with pytest.raises(ValueError, match="at least 2 values, got 1"):
            t_interval([1.0])
