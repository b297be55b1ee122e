"""How sure a mean is, and a difference: Student's t, the bootstrap, and pairs that share their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes most of a second to import

LEVEL = 0.95
"""Confidence of every interval."""
DRAWS = 10_000
"""Resamples of a bootstrap interval."""


class Difference(NamedTuple):
    """The mean of paired differences, its 95 % interval, and the two-sided p of Student's t test that it is none."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def std(sample: Sequence[float]) -> float:
    """Returns the sample standard deviation."""
    return float(np.std(sample, ddof=1))


def t_interval(sample: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the mean by Student's t.

    Raises:
        ValueError: fewer than two values.
    """
    _enough(sample)
    half = float(stdtrit(len(sample) - 1, (1 + LEVEL) / 2)) * std(sample) / len(sample) ** 0.5
    return fmean(sample) - half, fmean(sample) + half


def bootstrap_interval(sample: Sequence[float], draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the mean by the percentile bootstrap (Efron, 1979).

    It assumes no distribution, and is too narrow for few values: of five, by about the factor sqrt(4/5) 1.96/2.78.

    Raises:
        ValueError: fewer than two values.
    """
    _enough(sample)
    values, generator = np.asarray(sample, float), np.random.default_rng(seed)
    means = values[generator.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Returns what Student's paired t test says of `a - b`, value by value.

    Where pairs share what makes them vary (the initial network, the order of batches), differences vary less than the
    values, and smaller ones can be told. Equal differences have p 0, or 1 if they are none.

    Raises:
        ValueError: fewer than two values, or not as many on both sides.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values and {len(b)} make no pairs")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    low, high = t_interval(differences)
    mean, n = fmean(differences), len(differences)
    error = std(differences) / n**0.5
    if error <= 1e-12 * max(map(abs, [*a, *b])):
        return Difference(mean, low, high, 1.0 if abs(mean) <= 1e-12 else 0.0, n)
    return Difference(mean, low, high, 2 * float(stdtr(n - 1, -abs(mean) / error)), n)


def _enough(sample: Sequence[float]) -> None:
    if len(sample) < 2:
        raise ValueError(f"{len(sample)} value(s) have no spread; an interval needs two")
