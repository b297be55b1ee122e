"""The difference between two entries, or two metrics of one entry, with its 95 % interval."""

from __future__ import annotations

from statistics import fmean

from scipy.special import stdtr, stdtrit

from dd_bench.records.intervals import LEVEL, Difference, paired_difference, std
from dd_bench.records.record import Record


def difference(a: Record, b: Record, metric_a: str | None = None, metric_b: str | None = None) -> Difference:
    """Return the mean of `a - b` with its interval. The metrics are the main metrics by default.

    Two metrics of one entry are paired by network. Two entries of one set each are paired by the seeds of their
    networks. If one of them has several sets, its independent values are the means of its sets, which have no
    counterpart, so the interval is that of Welch's t-test.

    Raises:
        ValueError: there are fewer than two values, or an entry does not have the metric.
    """
    metric_a, metric_b = metric_a or a.main_metric, metric_b or b.main_metric
    first, second = by_seed(a, metric_a), by_seed(b, metric_b)
    if a.key == b.key and len(a.by_set(metric_a)) > 1:
        return paired_difference(a.sample(metric_a), a.sample(metric_b))
    shared = sorted(first.keys() & second.keys())
    if len(a.by_set(metric_a)) == len(b.by_set(metric_b)) == 1 and len(shared) > 1:
        return paired_difference([first[s] for s in shared], [second[s] for s in shared])
    return _welch(a.sample(metric_a), b.sample(metric_b))


def by_seed(record: Record, metric: str | None = None) -> dict[int, float]:
    """Return the value of each network by its seed, averaged over sets; the main metric by default."""
    metric = metric or record.main_metric
    found: dict[int, list[float]] = {}
    for score in record.scores:
        if score.metric == metric:
            found.setdefault(score.seed, []).append(score.value)
    return {seed: fmean(values) for seed, values in found.items()}


def _welch(a: list[float], b: list[float]) -> Difference:
    """Return the difference of two independent samples, with the interval of Welch's t-test."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a difference requires at least 2 values of each entry, got {len(a)} and {len(b)}")
    mean, errors = fmean(a) - fmean(b), [std(x) ** 2 / len(x) for x in (a, b)]
    error = sum(errors) ** 0.5
    if error <= 1e-12 * max(map(abs, [*a, *b])):
        return Difference(mean, mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0, min(len(a), len(b)))
    freedom = sum(errors) ** 2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, min(len(a), len(b)))
