"""How well one ranking of networks agrees with another, and how sure that is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 1000
"""Resamples of a bootstrap interval."""
CORRELATIONS = ("spearman", "kendall", "spearman_top", "kendall_top")


def agreement(ranked: Array, reference: Array, top: float) -> dict[str, float]:
    """Returns the rank correlations of two accuracies a network, and the reference's of the one ranked first.

    `_top` is over the best share `top` by the reference.
    """
    once = np.arange(len(reference))[None]
    found = {name: float(values[0]) for name, values in _by_sample(ranked, reference, top, once).items()}
    return found | {"performance": float(reference[ranked.argmax()])}


def intervals(rankings: dict[str, Array], reference: Array, top: float, seed: int) -> dict[str, float]:
    """Returns the ends of 95 % percentile bootstrap intervals over networks, of each ranking by its name.

    And of the first ranking less each of the others, as `over NAME`: on the same resamples, so that what all of them
    owe to the space is not counted twice.
    """
    n, found = len(reference), dict[str, Array]()
    samples = np.random.default_rng(seed).integers(n, size=(DRAWS, n))
    each = {name: _by_sample(ranked, reference, top, samples) for name, ranked in rankings.items()}
    first, *others = rankings
    for kind in CORRELATIONS:
        found |= {f"{name}{kind}": values[kind] for name, values in each.items()}
        found |= {f"over {name}{kind}": each[first][kind] - each[name][kind] for name in others}
    ends = {name: np.quantile(values, (0.025, 0.975)) for name, values in found.items()}
    return {
        f"{name}_{end}": float(v)
        for name, pair in ends.items()
        for end, v in zip(("low", "high"), pair, strict=True)
    }


def _by_sample(ranked: Array, reference: Array, top: float, samples: NDArray[np.int64]) -> dict[str, Array]:
    """Returns each of `CORRELATIONS`, `(m,)`, of m samples of n networks, given as indices `(m, n)`."""
    order = np.argsort(-reference[samples], axis=1, kind="stable")[:, : round(top * samples.shape[1])]
    found = {}
    for part, chosen in (("", samples), ("_top", np.take_along_axis(samples, order, axis=1))):
        counts = np.zeros((len(samples), len(reference)))
        np.add.at(counts, (np.arange(len(samples))[:, None], chosen), 1)
        found["spearman" + part], found["kendall" + part] = _rank_correlations(ranked, reference, counts)
    return found


def _rank_correlations(a: Array, b: Array, counts: Array) -> tuple[Array, Array]:
    """Returns Spearman's correlation and Kendall's tau-b, `(m,)` each, of m samples at once.

    Sample k holds the pair `(a[i], b[i])` `counts[k, i]` times. Both are sums over pairs of `sign(x[i] - x[j])`: half
    of its sum over j is the midrank of i less the mean rank. scipy.stats takes a millisecond for each sample. 0 where
    one side ranks nothing.
    """
    sign_a, sign_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    rank_a, rank_b = counts @ sign_a.T, counts @ sign_b.T  # (m, n)

    over_pairs = [(counts @ s) * counts for s in (sign_a * sign_b, np.abs(sign_a), np.abs(sign_b))]
    return _ratio(counts * rank_a * rank_b, counts * rank_a**2, counts * rank_b**2), _ratio(*over_pairs)


def _ratio(product: Array, square_a: Array, square_b: Array) -> Array:
    """Returns the row sums `product / sqrt(square_a * square_b)`; 0 where that is 0 / 0."""
    above: Array = product.sum(1)
    below: Array = np.sqrt(square_a.sum(1) * square_b.sum(1))
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)
