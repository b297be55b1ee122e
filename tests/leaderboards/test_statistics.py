from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from dd_bench.leaderboards.core.ranking import holm, rank, rank_samples, welch


def test_welch_equals_scipy_and_a_manual_computation():
    # Means 3 and 5, variances 2.5 and 10, n = 5: t = 2 / sqrt(2.5), df = 2.5^2 / ((0.5^2 + 2^2) / 4).
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 5.0, 7.0, 9.0]
    t, df = 2 / 2.5**0.5, 2.5**2 / ((0.5**2 + 2**2) / 4)
    [p, q] = welch([a, b], [0, 1], [1, 0])
    assert p == pytest.approx(2 * stats.t.sf(t, df), rel=1e-12)
    assert p == q == pytest.approx(float(stats.ttest_ind(a, b, equal_var=False).pvalue), rel=1e-12)


def test_holm_equals_a_manual_computation():
    # 4 x .01, 3 x .02, 2 x .03 -> .04, .06, .06 (monotone), then .06 again instead of 1 x .04.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_places_of_a_clear_case():
    spread = np.linspace(-0.01, 0.01, 5)
    best, near, far = ((m + spread).tolist() for m in (0.8, 0.795, 0.6))
    ranks = rank_samples([far, best, near, [0.9], [0.99, 0.99]])
    assert [s.place for s in ranks] == ["behind", "best", "tied", "untested", "untested"]
    pairs = welch([best, near, far], [0, 0, 1], [1, 2, 2])
    assert ranks[2].p == pytest.approx(holm(pairs)[0])
    assert ranks[0].p == pytest.approx(holm(pairs)[1])
    assert ranks[1].p == 1.0
    assert ranks[3].p is None


def test_ranks_do_not_depend_on_the_order_of_samples():
    samples = [[0.5, 0.6, 0.7], [0.55, 0.6, 0.65], [0.1, 0.11, 0.12], [0.9]]  # the first two have equal means
    want = dict(zip(map(tuple, samples), rank_samples(samples), strict=True))
    for shuffled in permutations(samples):
        assert dict(zip(map(tuple, shuffled), rank_samples(shuffled), strict=True)) == want


def test_equal_means_are_both_best():
    assert [s.place for s in rank_samples([[1.0, 3.0], [0.0, 4.0]])] == ["best", "best"]


@pytest.mark.parametrize("samples", [[], [[0.5]], [[0.5, 0.6]], [[0.5, 0.6], [0.9], [0.0, 0.0]]])
def test_fewer_than_two_testable_samples_are_untested(samples):
    assert [s.place for s in rank_samples(samples)] == ["untested"] * len(samples)


def test_several_sets_are_compared_by_their_means(record):
    # 30 networks on 2 sets are 2 values, which is too few to detect a difference of one standard deviation.
    a = record("a", 1, [[0.70] * 15, [0.72] * 15])
    b = record("b", 1, [[0.68] * 15, [0.70] * 15])
    assert [s.place for s in rank([a, b])] == ["best", "tied"]
    assert rank([a, b])[1].p == pytest.approx(welch([[0.70, 0.72], [0.68, 0.70]], [0], [1])[0])


@pytest.mark.parametrize(
    "change",
    [
        {"label_mode": "soft"},
        {"selection": "best_on_val"},
        {"model": "mlp"},
        {"evaluator": "x"},
        {"dataset": "x"},
    ],
)
def test_records_of_several_tracks_are_rejected(record, change):
    with pytest.raises(ValueError, match="the same track and IPC"):
        rank([record("a", 1, [[0.1, 0.2]]), record("b", 1, [[0.1, 0.2]], **change)])
    with pytest.raises(ValueError, match="the same track and IPC"):
        rank([record("a", 1, [[0.1, 0.2]]), record("b", 10, [[0.1, 0.2]])])


@pytest.mark.parametrize(("methods", "networks"), [(2, 5), (6, 5), (10, 3)])
def test_family_wise_error_rate_is_at_most_five_percent(methods, networks):
    rng = np.random.default_rng(methods)
    boards = 500
    wrong = sum(
        any(s.place == "behind" for s in rank_samples(rng.normal(size=(methods, networks)).tolist()))
        for _ in range(boards)
    )
    assert wrong / boards <= 0.05 + 3 * (0.05 * 0.95 / boards) ** 0.5


def test_a_large_difference_is_detected():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        samples = rng.normal(size=(5, 10))
        samples[3] += 5
        found += [s.place for s in rank_samples(samples.tolist())] == ["behind"] * 3 + ["best", "behind"]
    assert found >= 95
