"""Who is best, and who cannot be told from the best: Welch's t test on every pair, with Holm's correction."""

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
    """The place of one entry, and the Holm-adjusted p of its difference from the best (None if untested)."""

    place: Place
    p: float | None


def rank(records: Sequence[Record]) -> list[Rank]:
    """Ranks the records of one track and one IPC by their main metric; see `rank_samples`.

    With one synthetic set a sample is its networks, so the claim is about that set; with several it is the
    means of the sets, so the claim is about the method.

    Raises:
        ValueError: the records are of several tracks or IPCs.
    """
    if len(tracks := {(Track.of(r), r.ipc) for r in records}) > 1:
        raise ValueError(
            f"a ranking compares like with like, these records are of {len(tracks)}: {sorted(tracks)}"
        )
    return rank_samples([r.sample() for r in records])


def rank_samples(samples: Sequence[Sequence[float]], alpha: float = ALPHA) -> list[Rank]:
    """Ranks samples by their mean, higher is better.

    Best is the highest mean of those tested; tied is whatever has an adjusted p >= `alpha` against it. Holm
    runs over all k(k-1)/2 pairs, not over the k-1 with the best, as the best is picked after seeing the data.

    A sample without an estimate of its spread (one value, or all values equal) is untested: neither best nor
    tied nor behind, whatever its mean. With fewer than two tested samples there is nothing to be best of, and
    what would be best is untested too.

    Measured, 20,000 boards of k methods with equal means, share with any method called behind the best
    (in brackets: Holm over the k-1 pairs with the best alone):

        k     n=3             n=5             n=10
        2     .034 (.034)     .043 (.043)     .047 (.047)
        5     .017 (.044)     .028 (.066)     .035 (.084)
        12    .009 (.057)     .016 (.090)     .028 (.132)

    With equal n and spreads that differ threefold it stays within .053. Where sizes differ, Welch's
    approximation itself gives way: .07 if n=3 meets n=20, and .07 to .11 if a wide sample of n=2 meets a
    narrow one of n=5. The price is power: a best that is four std ahead of k-1 equal others has all of them
    behind it on .90 (n=5) and 1.0 (n=10) of boards at k=5, but on .14 and 1.0 at k=12. So give every entry of
    a board the same n: 5 for a few methods, 10 for a dozen.

    Returns:
        One standing for each sample, in the same order.
    """
    tested = [i for i, sample in enumerate(samples) if _has_spread(sample)]
    standings = [Rank("untested", None)] * len(samples)
    if len(tested) < 2:
        return standings
    first, second = np.triu_indices(len(tested), 1)  # of all pairs
    adjusted = np.ones((len(tested), len(tested)))
    adjusted[first, second] = holm(welch([samples[i] for i in tested], first, second))
    adjusted = np.minimum(adjusted, adjusted.T)
    means = {i: fmean(samples[i]) for i in tested}
    top = max(tested, key=lambda i: (means[i], sorted(samples[i])))  # the same whatever the order of equals
    for i, p in zip(tested, adjusted[tested.index(top)].tolist(), strict=True):
        place: Place = "best" if means[i] == means[top] else "tied" if p >= alpha else "behind"
        standings[i] = Rank(place, p)
    return standings


def welch(samples: Sequence[Sequence[float]], first: Indices, second: Indices) -> NDArray[np.float64]:
    """Returns the two-sided p of Welch's t test of pairs of samples: number `first[i]` and number `second[i]`.

    Each sample needs two values, and one of each pair a spread.
    """
    mean, spread, size = np.array([(fmean(x), std(x), len(x)) for x in samples]).T
    a, b = ((mean[i], spread[i], size[i]) for i in (np.asarray(first), np.asarray(second)))
    p: NDArray[np.float64] = stats.ttest_ind_from_stats(*a, *b, equal_var=False).pvalue
    return p


def holm(p: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Returns p values adjusted by Holm's step-down procedure (Holm 1979), in the order given."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, np.arange(len(values), 0, -1) * values[order]))
    found: list[float] = adjusted.tolist()
    return found


def _has_spread(sample: Sequence[float]) -> bool:
    return len(sample) > 1 and max(sample) - min(sample) > 1e-9 * max(map(abs, sample))
