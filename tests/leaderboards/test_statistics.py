from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from dd_bench.leaderboards.core.ranking import ALPHA, holm, p_values, rank, rank_samples


def test_p_values_equal_scipys_games_howell_test():
    samples = [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 5.0, 7.0, 9.0], [2.0, 2.5, 9.0], [0.0, 0.1, 0.2, 0.4]]
    want = stats.tukey_hsd(*samples, equal_var=False).pvalue[1]
    assert p_values(samples, 1) == pytest.approx(want, rel=1e-6)


def test_places_agree_with_the_p_values():
    """The bounds that save studentized ranges decide nothing else, and no mark contradicts the p-values."""
    rng = np.random.default_rng(1)
    for k in (2, 4, 7):
        spreads = rng.uniform(0.3, 3, size=k)
        samples = [
            (m + s * rng.normal(size=5)).tolist() for m, s in zip(np.linspace(0, 4, k), spreads, strict=True)
        ]
        top = max(range(k), key=lambda i: np.mean(samples[i]))
        want = ["behind" if p < ALPHA else "tied" for p in p_values(samples, top)]
        want[top] = "best"
        assert rank_samples(samples) == want


def test_a_difference_of_three_networks_is_no_tie():
    """With n = 3, Holm's correction over all pairs marked 67.8 and 62.0 as tied with 79.9, but not 75.2."""
    found = rank_samples(
        [[0.794, 0.799, 0.804], [0.655, 0.678, 0.701], [0.594, 0.620, 0.646], [0.745, 0.752, 0.759]]
    )
    assert found[0] == "best" and "tied" not in found
    five = [[0.79, 0.80, 0.81, 0.80, 0.80], [0.795, 0.80, 0.805, 0.794, 0.80]]
    assert rank_samples(five) == ["best", "tied"]
    assert rank_samples([five[0], five[1][:4]]) == ["best", "too_few"]
    assert rank_samples([five[0][:4], five[1]]) == ["best", "too_few"], "n of the best counts too"


def test_holm_equals_a_manual_computation():
    # 4 x .01, 3 x .02, 2 x .03 -> .04, .06, .06 (monotone), then .06 again instead of 1 x .04.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_places_of_a_clear_case():
    spread = np.linspace(-0.01, 0.01, 5)
    best, near, far = ((m + spread).tolist() for m in (0.8, 0.795, 0.6))
    assert rank_samples([far, best, near, [0.9], [0.99, 0.99]]) == [
        "behind",
        "best",
        "tied",
        "untested",
        "untested",
    ]


def test_ranks_do_not_depend_on_the_order_of_samples():
    samples = [[0.5, 0.6, 0.7], [0.55, 0.6, 0.65], [0.1, 0.11, 0.12], [0.9]]  # the first two have equal means
    want = dict(zip(map(tuple, samples), rank_samples(samples), strict=True))
    for shuffled in permutations(samples):
        assert dict(zip(map(tuple, shuffled), rank_samples(shuffled), strict=True)) == want


def test_equal_means_are_both_best():
    assert rank_samples([[1.0, 3.0], [0.0, 4.0]]) == ["best", "best"]


@pytest.mark.parametrize("samples", [[], [[0.5]], [[0.5, 0.6]], [[0.5, 0.6], [0.9], [0.0, 0.0]]])
def test_fewer_than_two_testable_samples_are_untested(samples):
    assert rank_samples(samples) == ["untested"] * len(samples)


def test_several_sets_are_compared_by_their_means(record):
    # 30 networks on 2 sets are 2 values, which is too few to detect a difference of one standard deviation.
    a = record("a", 1, [[0.70] * 15, [0.72] * 15])
    b = record("b", 1, [[0.68] * 15, [0.70] * 15])
    assert rank([a, b]) == ["best", "too_few"]


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


@pytest.mark.parametrize(
    ("methods", "networks", "boards"),
    [(2, 5, 500), (6, 5, 60), pytest.param(10, 5, 500, marks=pytest.mark.slow)],
)
def test_family_wise_error_rate_is_at_most_five_percent(methods, networks, boards):
    rng = np.random.default_rng(methods)
    wrong = sum(
        "behind" in rank_samples(rng.normal(size=(methods, networks)).tolist()) for _ in range(boards)
    )
    assert wrong / boards <= 0.05 + 3 * (0.05 * 0.95 / boards) ** 0.5


def test_a_large_difference_is_detected():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        samples = rng.normal(size=(5, 10))
        samples[3] += 5
        found += rank_samples(samples.tolist()) == ["behind"] * 3 + ["best", "behind"]
    assert found >= 95
