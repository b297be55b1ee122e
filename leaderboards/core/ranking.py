"""Ranking of entries: Welch's t-test on every pair, with Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dd_bench.records.intervals import std
from dd_bench.records.record import Record

from .entries import Track

ALPHA = 0.05
"""Family-wise error rate of one ranking (one track, one IPC)."""

Indices = Sequence[int] | NDArray[np.intp]
Place = Literal["best", "tied", "behind", "untested"]


class Rank(NamedTuple):
    """The place of one entry, and the Holm-adjusted p-value of its difference from the best entry.

    The p-value is None if the entry was not tested.
    """

    place: Place
    p: float | None


def rank(records: Sequence[Record]) -> list[Rank]:
    """Rank the records of one track and one IPC by their main metric; see `rank_samples`.

    If a record has one synthetic set, its sample consists of the values of the networks, and the result applies to this
    set. If it has several sets, its sample consists of the means of the sets, and the result applies to the method.

    Raises:
        ValueError: the records are from several tracks or IPCs.
    """
    if len(tracks := {(Track.of(r), r.ipc) for r in records}) > 1:
        raise ValueError(f"records must have the same track and IPC, got {len(tracks)}: {sorted(tracks)}")
    return rank_samples([r.sample() for r in records])


def rank_samples(samples: Sequence[Sequence[float]], alpha: float = ALPHA) -> list[Rank]:
    """Rank samples by their mean; higher is better.

    The best sample is the tested sample with the highest mean. Another sample is tied with the best sample if the
    adjusted p-value of their difference is at least `alpha`, and ranked behind it otherwise. Holm's correction runs
    over all k(k-1)/2 pairs, not only over the k-1 pairs with the best, because the best is selected after seeing the
    data.

    A sample whose spread cannot be estimated (one value, or all values equal) is untested, whatever its mean. With
    fewer than two tested samples, all samples are untested.

    Simulation with 20,000 boards of k methods with equal means: fraction of boards with any method ranked behind
    the best (in parentheses: with Holm's correction over the k-1 pairs with the best only):

        k     n=3             n=5             n=10
        2     .034 (.034)     .043 (.043)     .047 (.047)
        5     .017 (.044)     .028 (.066)     .035 (.084)
        12    .009 (.057)     .016 (.090)     .028 (.132)

    With equal n and spreads that differ by a factor of three, the error rate is at most .053. With different sizes,
    Welch's approximation is less accurate: .07 for n=3 against n=20, and .07 to .11 for a sample of n=2 with a large
    spread against one of n=5 with a small spread. The correction reduces the power of the test. If the best method is
    four std above k-1 others with equal means, all of them are ranked behind it on .90 (n=5) and 1.0 (n=10) of boards
    at k=5, but on .14 and 1.0 at k=12. All entries of a board should therefore have the same n: 5 for a few methods, 10
    for a dozen.

    Returns:
        One rank per sample, in the same order.
    """
    tested = [i for i, sample in enumerate(samples) if _has_spread(sample)]
    ranks = [Rank("untested", None)] * len(samples)
    if len(tested) < 2:
        return ranks
    first, second = np.triu_indices(len(tested), 1)  # all pairs
    adjusted = np.ones((len(tested), len(tested)))
    adjusted[first, second] = holm(welch([samples[i] for i in tested], first, second))
    adjusted = np.minimum(adjusted, adjusted.T)
    means = {i: fmean(samples[i]) for i in tested}
    top = max(
        tested, key=lambda i: (means[i], sorted(samples[i]))
    )  # does not depend on the order of equal means
    for i, p in zip(tested, adjusted[tested.index(top)].tolist(), strict=True):
        place: Place = "best" if means[i] == means[top] else "tied" if p >= alpha else "behind"
        ranks[i] = Rank(place, p)
    return ranks


def welch(samples: Sequence[Sequence[float]], first: Indices, second: Indices) -> NDArray[np.float64]:
    """Return the two-sided p-values of Welch's t-test for the pairs of samples `first[i]` and `second[i]`.

    Each sample must have at least two values. At least one sample of each pair must have a nonzero spread.
    """
    mean, spread, size = np.array([(fmean(x), std(x), len(x)) for x in samples]).T
    a, b = ((mean[i], spread[i], size[i]) for i in (np.asarray(first), np.asarray(second)))
    p: NDArray[np.float64] = stats.ttest_ind_from_stats(*a, *b, equal_var=False).pvalue
    return p


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
