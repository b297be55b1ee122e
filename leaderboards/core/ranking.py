"""Ranking of entries: the highest mean, and Games-Howell comparisons of every other entry with it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from dd_bench.records.intervals import std
from dd_bench.records.record import Record

from .entries import Track

ALPHA = 0.05
"""Family-wise error rate of one ranking (one track, one IPC)."""
MIN_SIZE = 5
"""A difference that is not significant is a tie only if both samples have at least this many values."""

# `over_budget` and `chosen_on_test`: the board does not rank the entry, because its set stores more than its IPC, or
# because its hyper-parameters were chosen on test data
Place = Literal["best", "tied", "too_few", "behind", "untested", "over_budget", "chosen_on_test"]
RANKED: tuple[Place, ...] = ("best", "tied", "behind", "too_few")
"""Places of entries that were compared with the best one."""


def rank(records: Sequence[Record]) -> list[Place]:
    """Rank the records of one track and one IPC by their main metric; see `rank_samples`.

    With one synthetic set, the sample is the values of its networks, and the result applies to that set. With several
    sets, the sample is the means of the sets, and the result applies to the method.

    Raises:
        ValueError: the records are from several tracks or IPCs.
    """
    if len(tracks := {(Track.of(r), r.ipc) for r in records}) > 1:
        raise ValueError(f"records must have the same track and IPC, got {len(tracks)}: {sorted(tracks)}")
    return rank_samples([r.sample() for r in records])


def rank_samples(samples: Sequence[Sequence[float]], alpha: float = ALPHA) -> list[Place]:
    """Rank samples by their mean; higher is better.

    The best sample is the tested one with the highest mean, and every other sample is compared with it alone. A sample
    is *behind* if the p-value of `p_values` is below `alpha`. Otherwise it is *tied* with the best, or *too_few* if it
    or the best has fewer than `MIN_SIZE` values: so few values rarely separate methods that differ.

    A sample whose spread cannot be estimated (one value, or all values equal) is *untested*, whatever its mean. With
    fewer than two tested samples, all samples are untested.

    The best sample is selected after seeing the data. With equal means, the largest of its k-1 differences is therefore
    the range of k means, whose distribution is the studentized range: the test of Games and Howell (1976), which is
    Tukey's for unequal variances and sizes. Dunnett's test of k-1 samples with a control assumes a control that was
    selected in advance and equal variances. Corrections over the k-1 comparisons have the same fault.

    Simulation with 20,000 boards of k methods with equal means: fraction of boards with any method ranked behind the
    best (in parentheses: Welch's t-test with Holm's correction over the k-1 comparisons with the best):

        k     n=3             n=5             n=10
        2     .035 (.035)     .046 (.046)     .048 (.048)
        5     .043 (.045)     .051 (.069)     .051 (.083)
        12    .060 (.054)     .054 (.092)     .055 (.134)

    The rate is at most .056 with equal n and spreads that differ by factors of up to ten, and at most .064 (.099) with
    one sample of n=3 or n=20 among samples of n=5, of equal spread or one that differs by a factor of three. If the
    best method is four std above k-1 others with equal means, all of them are ranked behind it on .93 (n=5) and 1.0
    (n=10) of boards at k=5, on .48 and 1.0 at k=12, but with n=3 on .17 and .00. All entries of a board should
    therefore have the same n: 5 for a few methods, 10 for a dozen.

    Returns:
        One place per sample, in the same order.
    """
    tested = [i for i, sample in enumerate(samples) if _has_spread(sample)]
    places: list[Place] = ["untested"] * len(samples)
    if len(tested) < 2:
        return places
    compared = [samples[i] for i in tested]
    means = [fmean(x) for x in compared]
    # equal means: the choice does not depend on the order of the samples
    top = max(range(len(tested)), key=lambda i: (means[i], sorted(compared[i])))
    behind = _significant(compared, top, alpha)
    for i, sample, mean, is_behind in zip(tested, compared, means, behind.tolist(), strict=True):
        if mean == means[top]:
            places[i] = "best"
        elif is_behind:
            places[i] = "behind"
        else:
            places[i] = "tied" if min(len(sample), len(compared[top])) >= MIN_SIZE else "too_few"
    return places


def p_values(samples: Sequence[Sequence[float]], top: int) -> NDArray[np.float64]:
    """Return the p-value of each sample's difference from sample `top`, by the test of Games and Howell.

    They are those of `scipy.stats.tukey_hsd(*samples, equal_var=False)` for the pairs with `top`, without the other
    pairs. Each sample needs at least two values, and at least one sample of each pair a nonzero spread. The p-value of
    `top` itself is 1.
    """
    t, df = _welch(samples, top)
    p = _range_tail(t, len(samples), df)
    p[top] = 1.0
    return p


def _significant(samples: Sequence[Sequence[float]], top: int, alpha: float) -> NDArray[np.bool_]:
    """Return whether each of `p_values` is below `alpha`.

    The studentized range takes scipy some 50 ms per value, so it is computed only if its bounds do not decide: with the
    p-value p of one pair (Welch's t-test), it is at least p and, by Bonferroni's inequality, at most k(k-1)/2 p.
    """
    k, (t, df) = len(samples), _welch(samples, top)
    pair = 2 * stdtr(df, -t)
    below: NDArray[np.bool_] = k * (k - 1) / 2 * pair < alpha
    open_ = ~below & (pair < alpha)
    if k > 2 and open_.any():
        below[open_] = _range_tail(t[open_], k, df[open_]) < alpha
    below[top] = False
    return below


def _range_tail(t: NDArray[np.float64], k: int, df: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that the studentized range of `k` means is above sqrt(2) times each |t|."""
    from scipy.stats import studentized_range  # the import takes most of a second

    p: NDArray[np.float64] = studentized_range.sf(t * 2**0.5, k, df)
    return p


def _welch(samples: Sequence[Sequence[float]], top: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return |t| and the degrees of freedom of Welch's t-test of each sample with sample `top`."""
    mean, spread, size = np.array([(fmean(x), std(x), len(x)) for x in samples]).T
    error = spread**2 / size
    both = error + error[top]
    df = both**2 / (error**2 / (size - 1) + error[top] ** 2 / (size[top] - 1))
    return np.abs(mean - mean[top]) / np.sqrt(both), df


def holm(p: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure (Holm, 1979), in the given order."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, np.arange(len(values), 0, -1) * values[order]))
    result: list[float] = adjusted.tolist()
    return result


def _has_spread(sample: Sequence[float]) -> bool:
    return len(sample) > 1 and max(sample) - min(sample) > 1e-9 * max(map(abs, sample))
