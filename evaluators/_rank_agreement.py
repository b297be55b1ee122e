"""How well one ranking of networks agrees with another, and how sure that is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

Array = NDArray[np.float64]
DRAWS = 1000
"""Resamples of a bootstrap interval."""
CORRELATIONS = ("spearman", "kendall", "spearman_top", "kendall_top")


def agreement(ranked: Array, reference: Array, top: float) -> dict[str, float]:
    """Returns the rank correlations of two accuracies a network, and the reference's of the one ranked first.

    `_top` is over the best share `top` by the reference.
    """
    best = np.argsort(-reference, kind="stable")[: round(top * len(reference))]
    return {
        "spearman": _spearman(ranked, reference),
        "kendall": _kendall(ranked, reference),
        "spearman_top": _spearman(ranked[best], reference[best]),
        "kendall_top": _kendall(ranked[best], reference[best]),
        "performance": float(reference[ranked.argmax()]),
    }


def intervals(rankings: dict[str, Array], reference: Array, top: float, seed: int) -> dict[str, float]:
    """Returns the ends of 95 % percentile bootstrap intervals over networks, of each ranking by its name.

    And of the first ranking less each of the others, as `over NAME`: on the same resamples, so that what all of them
    owe to the space is not counted twice.
    """
    draws, n, found = np.random.default_rng(seed), len(reference), dict[str, list[float]]()
    first, *others = rankings
    for _ in range(DRAWS):
        again = draws.integers(n, size=n)
        each = {name: agreement(r[again], reference[again], top) for name, r in rankings.items()}
        for kind in CORRELATIONS:
            for name, values in each.items():
                found.setdefault(f"{name}{kind}", []).append(values[kind])
            for name in others:
                found.setdefault(f"over {name}{kind}", []).append(each[first][kind] - each[name][kind])
    ends = {name: np.quantile(values, (0.025, 0.975)) for name, values in found.items()}
    return {
        f"{name}_{end}": float(v)
        for name, pair in ends.items()
        for end, v in zip(("low", "high"), pair, strict=True)
    }


def _spearman(a: Array, b: Array) -> float:
    """Returns Spearman's rank correlation; 0 where one side ranks nothing."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def _kendall(a: Array, b: Array) -> float:
    """Returns Kendall's tau-b; 0 where one side ranks nothing."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(kendalltau(a, b).statistic)
