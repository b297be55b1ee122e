"""Confidence intervals of means and differences (Student's t, Welch, bootstrap) and paired t tests."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats takes most of a second to import

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 10_000
"""Number of bootstrap resamples."""


class Difference(NamedTuple):
    """Mean difference, its 95 % confidence interval, the two-sided p-value of the t test, and the number of pairs."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def std(sample: Sequence[float]) -> float:
    """Return the sample standard deviation."""
    return float(np.std(sample, ddof=1))


def t_interval(sample: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of the mean by Student's t.

    Raises:
        ValueError: fewer than two values.
    """
    _check_size(sample)
    half = float(stdtrit(len(sample) - 1, (1 + LEVEL) / 2)) * std(sample) / len(sample) ** 0.5
    return fmean(sample) - half, fmean(sample) + half


def bootstrap_interval(
    sample: Sequence[float], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of the mean by the percentile bootstrap (Efron, 1979).

    It assumes no distribution. For small samples it is too narrow, e.g. for five values by a factor of about
    sqrt(4/5) * 1.96/2.78.

    Raises:
        ValueError: fewer than two values.
    """
    _check_size(sample)
    values, generator = np.asarray(sample, float), np.random.default_rng(seed)
    means = values[generator.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the result of Student's paired t test of `a - b`.

    If `a[i]` and `b[i]` share a source of variance (the initial network, the order of batches), the differences vary
    less than the values, and the test detects smaller effects. If all differences are equal, p is 1 if they are zero
    and 0 otherwise.

    Raises:
        ValueError: fewer than two pairs, or `a` and `b` have different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired test requires equal numbers of values, got {len(a)} and {len(b)}")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    low, high = t_interval(differences)
    mean, n = fmean(differences), len(differences)
    error = std(differences) / n**0.5
    if error <= 1e-12 * max(map(abs, [*a, *b])):
        return Difference(mean, low, high, 1.0 if abs(mean) <= 1e-12 else 0.0, n)
    return Difference(mean, low, high, 2 * float(stdtr(n - 1, -abs(mean) / error)), n)


def unpaired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the result of Welch's t test of the difference of the means of two independent samples.

    The samples may have different spreads and sizes; `n` is the smaller size. If all values of each sample are equal,
    the interval is the difference itself, and p is 1 if it is zero and 0 otherwise.

    Raises:
        ValueError: a sample has fewer than two values.
    """
    _check_size(a)
    _check_size(b)
    mean, errors, n = fmean(a) - fmean(b), [std(x) ** 2 / len(x) for x in (a, b)], min(len(a), len(b))
    error = sum(errors) ** 0.5
    if error <= 1e-12 * max(map(abs, [*a, *b])):
        return Difference(mean, mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0, n)
    freedom = sum(errors) ** 2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Difference(mean, mean - half, mean + half, 2 * float(stdtr(freedom, -abs(mean) / error)), n)


def _check_size(sample: Sequence[float]) -> None:
    if len(sample) < 2:
        raise ValueError(f"a confidence interval requires at least 2 values, got {len(sample)}")
